//! Pages that are asked over HTTP: those of a proxy about itself, and health checks.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A page that a proxy serves about itself.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Page {
    /// Whether it is healthy and its node takes load balancers' traffic.
    Healthz,
    /// Whether it is alive.
    Livez,
    /// How it forwards.
    Mode,
    /// Its metrics, in the text format of Prometheus.
    Metrics,
}

impl Page {
    /// All of them.
    pub const ALL: [Page; 4] = [Page::Healthz, Page::Livez, Page::Mode, Page::Metrics];
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Page::Healthz => "healthz",
            Page::Livez => "livez",
            Page::Mode => "mode",
            Page::Metrics => "metrics",
        })
    }
}

/// What a client asks of an HTTP server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Asked {
    /// Path, with its slash.
    pub path: String,
    /// What to look for in the answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub looks: Vec<Look>,
}

/// A part of an HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Look {
    /// A header.
    Header(String),
    /// A value of a JSON body, by the names on the way to it, with dots between them.
    Json(String),
    /// The body, without white space around it.
    Text,
    /// The sum of all samples of a metric that have these labels.
    Metric(Selector),
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Look::Header(name) => write!(f, "header {name}"),
            Look::Json(path) => write!(f, "json {path}"),
            Look::Text => f.write_str("text"),
            Look::Metric(selector) => write!(f, "metric {selector}"),
        }
    }
}

/// Samples of a metric: its name, and labels that they must have among others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Selector {
    /// Name.
    pub name: String,
    /// Labels and their values, in order of their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<(String, String)>,
}

impl Selector {
    /// Reads `name` or `name{label="x",other="y"}`, as samples are written too.
    #[must_use]
    pub fn parse(text: &str) -> Option<Selector> {
        let (name, rest) = match text.split_once('{') {
            Some((name, rest)) => (name, rest.strip_suffix('}')?),
            None => (text, ""),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        if name.is_empty() || !name.chars().all(plain) {
            return None;
        }
        let mut labels = Vec::new();
        let mut rest = rest;
        while !rest.is_empty() {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.push((label.trim().to_owned(), value));
            rest = after.strip_prefix(',').unwrap_or(after).trim_start();
            if !after.is_empty() && !after.starts_with(',') {
                return None;
            }
        }
        labels.sort();
        Some(Selector { name: name.to_owned(), labels })
    }

    /// Whether a sample of that name and those labels is among those selected.
    #[must_use]
    pub fn takes(&self, sample: &Selector) -> bool {
        self.name == sample.name && self.labels.iter().all(|label| sample.labels.contains(label))
    }
}

/// The text up to the next quote that is not escaped, and what follows the quote.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match letters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (at, (label, value)) in self.labels.iter().enumerate() {
            write!(f, "{}{label}={value:?}", if at == 0 { "{" } else { "," })?;
        }
        f.write_str(if self.labels.is_empty() { "" } else { "}" })
    }
}

/// What a part of an HTTP answer must be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// This; numbers are compared as numbers.
    Is(String),
    /// There, whatever it is.
    Present,
    /// Not there.
    Absent,
    /// A number of at least so much.
    AtLeast(String),
    /// A number above this one.
    MoreThan(String),
}

impl Condition {
    /// Whether what was seen fits; none stands for a part that is not there.
    #[must_use]
    pub fn admits(&self, seen: Option<&str>) -> bool {
        let number = |text: &str| text.parse::<f64>().ok();
        let compare = |wanted: &str, fits: fn(f64, f64) -> bool| {
            let seen = seen.and_then(number);
            seen.zip(number(wanted)).is_some_and(|(seen, wanted)| fits(seen, wanted))
        };
        match self {
            Condition::Is(wanted) => {
                seen == Some(wanted.as_str())
                    || compare(wanted, |seen, wanted| (seen - wanted).abs() < 1e-9)
            }
            Condition::Present => seen.is_some(),
            Condition::Absent => seen.is_none(),
            Condition::AtLeast(wanted) => compare(wanted, |seen, wanted| seen >= wanted),
            Condition::MoreThan(wanted) => compare(wanted, |seen, wanted| seen > wanted),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Condition::Is(wanted) => write!(f, "is {wanted:?}"),
            Condition::Present => f.write_str("is there"),
            Condition::Absent => f.write_str("is not there"),
            Condition::AtLeast(wanted) => write!(f, "is at least {wanted}"),
            Condition::MoreThan(wanted) => write!(f, "is more than {wanted}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors() {
        let show = |text: &str| Selector::parse(text).map(|selector| selector.to_string());
        assert_eq!(show("up").as_deref(), Some("up"));
        assert_eq!(show(r#"x_total{b="2",a="1"}"#).as_deref(), Some(r#"x_total{a="1",b="2"}"#));
        assert_eq!(show(r#"x{a="} \"q\","}"#).as_deref(), Some(r#"x{a="} \"q\","}"#));
        for bad in ["", "a b", "x{", "x{a}", r#"x{a="1"b="2"}"#, r#"x{a="1}"#] {
            assert_eq!(show(bad), None, "{bad}");
        }
        let one = |text| Selector::parse(text).expect("a selector");
        assert!(one(r#"x{a="1"}"#).takes(&one(r#"x{a="1",b="2"}"#)));
        assert!(!one(r#"x{a="1"}"#).takes(&one(r#"x{a="2"}"#)));
        assert!(!one("x").takes(&one("y")));
    }

    #[test]
    fn conditions() {
        let is = |text: &str| Condition::Is(text.to_owned());
        assert!(is("1").admits(Some("1.0")) && is("ok").admits(Some("ok")));
        assert!(!is("1").admits(None) && !is("ok").admits(Some("no")));
        assert!(Condition::Absent.admits(None) && !Condition::Absent.admits(Some("")));
        assert!(Condition::Present.admits(Some("")) && !Condition::Present.admits(None));
        let more = Condition::MoreThan("2".to_owned());
        assert!(more.admits(Some("2.5")) && !more.admits(Some("2")) && !more.admits(None));
        assert!(Condition::AtLeast("2".to_owned()).admits(Some("2")));
        assert!(!Condition::AtLeast("2".to_owned()).admits(Some("many")));
    }
}
