//! What an HTTP answer shows of what was looked for.

use std::collections::BTreeMap;

use touchstone_spec::{Look, Selector};

/// Longest value that is told; the rest of it is cut off.
const VALUE_LIMIT: usize = 200;

/// The parts that are there, by their names.
pub(crate) fn shown(
    looks: &[Look],
    headers: &[(String, String)],
    body: &[u8],
) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(body);
    let mut json = None;
    let mut found = BTreeMap::new();
    for look in looks {
        let value = match look {
            Look::Header(name) => headers
                .iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.clone()),
            Look::Json(path) => {
                let json = json.get_or_insert_with(|| {
                    serde_json::from_slice(body).unwrap_or(serde_json::Value::Null)
                });
                at(json, path)
            }
            Look::Text => Some(text.trim().to_owned()),
            Look::Metric(selector) => sum(&text, selector).map(|sum| sum.to_string()),
        };
        if let Some(value) = value {
            found.insert(look.to_string(), value.chars().take(VALUE_LIMIT).collect());
        }
    }
    found
}

/// The value at a path of names; none where it is not there or null.
fn at(json: &serde_json::Value, path: &str) -> Option<String> {
    let mut value = json;
    for name in path.split('.') {
        value = value.get(name)?;
    }
    match value {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(text.clone()),
        other @ (serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::Array(_)
        | serde_json::Value::Object(_)) => Some(other.to_string()),
    }
}

/// The sum of the samples selected; none where there are none.
fn sum(text: &str, selector: &Selector) -> Option<f64> {
    text.lines()
        .filter(|line| line.starts_with(selector.name.as_str()))
        .filter_map(sample)
        .filter(|(sample, _)| selector.takes(sample))
        .map(|(_, value)| value)
        .reduce(|sum, value| sum + value)
}

/// A line of the text format: name, labels, value and perhaps a time.
fn sample(line: &str) -> Option<(Selector, f64)> {
    let end = match line.rfind('}') {
        Some(end) => end + 1,
        None => line.find(' ')?,
    };
    let (name, rest) = line.split_at_checked(end)?;
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some((Selector::parse(&name.replace(",}", "}"))?, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "# HELP x_total Of something.\n# TYPE x_total counter\n\
        x_total{a=\"1\",b=\"2\"} 3\nx_total{a=\"1\",b=\"3\",} 4 1700000000000\n\
        x_total_more 9\nplain 1.5e+00\nodd{a=\"1\"} NaN?\n";

    fn check(look: Look, want: Option<&str>) {
        let body = if matches!(look, Look::Json(_)) {
            r#"{"service":{"name":"web"},"n":2,"on":true,"none":null}"#
        } else {
            METRICS
        };
        let headers = [("X-Weight".to_owned(), "2".to_owned())];
        let shown = shown(std::slice::from_ref(&look), &headers, body.as_bytes());
        assert_eq!(shown.get(&look.to_string()).map(String::as_str), want, "{look}");
    }

    fn metric(text: &str) -> Look {
        Look::Metric(Selector::parse(text).expect("a selector"))
    }

    #[test]
    fn parts() {
        check(Look::Header("x-weight".into()), Some("2"));
        check(Look::Header("x-other".into()), None);
        check(Look::Json("service.name".into()), Some("web"));
        check(Look::Json("n".into()), Some("2"));
        check(Look::Json("on".into()), Some("true"));
        check(Look::Json("none".into()), None);
        check(Look::Json("service.name.more".into()), None);
    }

    #[test]
    fn metrics() {
        check(metric("x_total"), Some("7"));
        check(metric(r#"x_total{a="1"}"#), Some("7"));
        check(metric(r#"x_total{b="3"}"#), Some("4"));
        check(metric(r#"x_total{b="4"}"#), None);
        check(metric("plain"), Some("1.5"));
        check(metric("odd"), None);
        check(metric("x"), None);
    }

    #[test]
    fn long_values_are_cut() {
        let shown = shown(&[Look::Text], &[], "é".repeat(VALUE_LIMIT * 2).as_bytes());
        assert_eq!(shown.get("text").map(|text| text.chars().count()), Some(VALUE_LIMIT));
    }
}
