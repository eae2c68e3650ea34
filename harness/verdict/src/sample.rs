//! How many samples it takes.

/// Probability that a whole run of a right proxy shows a single false alarm by chance.
pub const FALSE_ALARM_RATE: f64 = 1e-3;

/// Number of independent, evenly chosen connections after which each of `k` endpoints was seen
/// with probability at least `1 - miss`.
///
/// The union bound: k·(1−1/k)^n ≤ miss, so n ≥ ln(k/miss) / −ln(1−1/k).
#[must_use]
pub fn samples_to_see_all(k: usize, miss: f64) -> u64 {
    if k <= 1 {
        return 1;
    }
    let k = k as f64;
    let n = ((k / miss).ln() / -(1.0 - 1.0 / k).ln()).ceil();
    // k and miss are bounded, so n is a small positive number.
    n as u64
}

/// The share of the run's false alarm rate that one of `cells` coverage duties may have.
#[must_use]
pub fn miss_probability(cells: u64) -> f64 {
    FALSE_ALARM_RATE / cells.max(1) as f64
}

/// How far the share of one of `k` evenly chosen endpoints may be from 1/k in `n` connections,
/// when a right proxy may exceed it with probability at most `miss` in any endpoint.
///
/// Hoeffding's inequality with the union bound over the endpoints and both sides.
#[must_use]
pub fn even_share_slack(k: usize, n: u64, miss: f64) -> f64 {
    ((2.0 * k as f64 / miss).ln() / (2.0 * n.max(1) as f64)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_the_bound() {
        assert_eq!(samples_to_see_all(1, 1e-9), 1);
        assert_eq!(samples_to_see_all(2, 1e-6), 21);
        assert_eq!(samples_to_see_all(3, 1e-6), 37);
        for k in 2..20_usize {
            for miss in [1e-3, 1e-6, 1e-10] {
                let n = samples_to_see_all(k, miss);
                let missed = k as f64 * (1.0 - 1.0 / k as f64).powf(n as f64);
                assert!(missed <= miss, "k {k} n {n}");
            }
        }
    }

    #[test]
    fn slack_shrinks_with_samples() {
        assert!(even_share_slack(3, 1000, 1e-6) < even_share_slack(3, 100, 1e-6));
        assert!(even_share_slack(3, 1000, 1e-6) < 0.1);
    }
}
