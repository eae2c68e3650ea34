//! Quantiles and shares.

use crate::{CaseResult, Quantiles, Settling};

/// `part` of `whole`, 0 to 1.
#[expect(clippy::cast_precision_loss, reason = "a share of milliseconds needs no 53 bits")]
pub(crate) fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Settle times over the steps of some results.
pub(crate) fn settling(results: &[&CaseResult]) -> Settling {
    let times = || results.iter().flat_map(|result| &result.steps).map(|step| &step.times);
    Settling {
        first_right: quantiles(times().filter_map(|times| times.first_right).collect()),
        settled: quantiles(times().filter_map(|times| times.settled).collect()),
        unsettled: times().map(|it| u64::from(it.settled.is_none() && !it.early)).sum(),
        untimed: times().map(|times| u64::from(times.early)).sum(),
    }
}

/// Quantiles by nearest rank; none of an empty sample.
pub(crate) fn quantiles(mut sample: Vec<u64>) -> Option<Quantiles> {
    sample.sort_unstable();
    let n = sample.len();
    let rank = |percent: usize| sample.get((n * percent).div_ceil(100).max(1) - 1).copied();
    Some(Quantiles {
        n: u64::try_from(n).unwrap_or(u64::MAX),
        min: *sample.first()?,
        p50: rank(50)?,
        p90: rank(90)?,
        max: *sample.last()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_of_the_sample() {
        let got = quantiles((1..=10).rev().collect()).expect("a sample");
        assert_eq!((got.n, got.min, got.p50, got.p90, got.max), (10, 1, 5, 9, 10));
        let one = quantiles(vec![7]).expect("a sample");
        assert_eq!((one.n, one.min, one.p50, one.p90, one.max), (1, 7, 7, 7, 7));
        assert_eq!(quantiles(Vec::new()), None);
    }

    #[test]
    fn nothing_has_no_share() {
        assert_eq!(share(1, 4), Some(0.25));
        assert_eq!(share(0, 0), None);
    }
}
