//! Pages of proxies, health checks and the API servers: where they are, and what their answers must show.

use std::net::SocketAddr;

use serde_json::Value;
use touchstone_spec::{
    ApiService, Asked, Condition, Family, Flow, FrontendKind, Look, Page, Protocol, Selector,
};

use crate::goals::Goal;
use crate::grammar::{Expected, size};
use crate::rows::Scene;
use crate::text::{Grows, RowText, ShowsText};
use crate::{At, BookError, CaseError, Growth, Place, Shows};

/// Most bytes of a row over TCP.
const MOST_TCP: u32 = 16_000_000;
/// Most bytes of a row over UDP: with the question they must fit into a datagram.
const MOST_UDP: u32 = 60_000;
/// Status of a page when the row says nothing else.
const OK: u16 = 200;
/// Path of a health check when the row says nothing else.
const HEALTH_CHECK: &str = "/healthz";

impl Scene<'_, '_> {
    /// A page of the proxy of one node.
    pub(crate) fn page(
        &self,
        page: Page,
        node: String,
        place: Place,
        family: Family,
    ) -> Result<Goal, CaseError> {
        self.known_node(&node, place)?;
        let facts = self.context.book.node(&node).map(|(_, facts)| facts);
        let url = facts.and_then(|facts| facts.pages.get(&page)).cloned();
        let lack = |error: BookError| self.context.lack(place)(error);
        let url = url.ok_or_else(|| lack(BookError::NoPage { node: node.clone(), page }))?;
        let (home, path) = split(&url)
            .ok_or_else(|| lack(BookError::PageAddress { node: node.clone(), page, url }))?;
        let address = self.context.book.node_address(&node, family).map_err(lack)?;
        Ok(Goal {
            kind: FrontendKind::Page,
            address,
            port: home.port(),
            protocol: Protocol::Tcp,
            text: format!("proxy {page}@{node}"),
            owner: Some(node),
            via: None,
            service: None,
            page: Some((home, path)),
            question: None,
        })
    }

    /// The API servers' page that says their release, by the Service that leads to them.
    pub(crate) fn api_server(&self, place: Place, family: Family) -> Result<Goal, CaseError> {
        let Some(api) = &self.context.book.facts.api else {
            let error = self.context.wrong(place, "the row asks for the API servers");
            return Err(error.help("write `needs: { dns: true }`"));
        };
        let to = SocketAddr::new(api.address, ApiService::PORT);
        if Family::of(to.ip()) != family {
            let message = format!("the API servers have no {family} address: {to}");
            return Err(self.context.wrong(place, message));
        }
        Ok(Goal {
            kind: FrontendKind::Page,
            address: to.ip(),
            port: to.port(),
            protocol: Protocol::Tcp,
            text: "api server".to_owned(),
            owner: None,
            via: None,
            service: None,
            page: Some((to, ApiService::PATH.to_owned())),
            question: None,
        })
    }

    /// What a row asks of its flow beyond the ordinary question.
    pub(crate) fn ask(
        &self,
        flow: &mut Flow,
        text: &RowText,
        shows: &Shows,
    ) -> Result<(), CaseError> {
        let asks_only = flow.question.as_ref().is_some_and(|question| question.then.is_none());
        if let (true, Some(At { place, .. })) = (asks_only, &text.size) {
            return Err(self.context.wrong(*place, "`size` is for identity servers"));
        }
        if let Some(At { value, place }) = &text.size {
            let most = match flow.protocol {
                Protocol::Tcp | Protocol::Sctp => MOST_TCP,
                Protocol::Udp => MOST_UDP,
            };
            let wrong = |Expected(what)| self.context.wrong(*place, what);
            flow.size = size(value, most).map_err(wrong)?;
            flow.text = format!("{} of {value}", flow.text);
        }
        if let Some(At { place, .. }) = &text.listed {
            return self.ask_table(flow, shows, *place);
        }
        let http = matches!(flow.frontend, FrontendKind::HealthCheck | FrontendKind::Page);
        if !http {
            return match (&text.path, &text.shows) {
                (None, None) => Ok(()),
                (Some(At { place, .. }), _) | (None, Some(At { place, .. })) => {
                    Err(self.context.wrong(
                        *place,
                        "`path` and `shows` are for health checks and pages of proxies",
                    ))
                }
            };
        }
        if let Some(At { place, .. }) = &text.size {
            return Err(self.context.wrong(*place, "`size` is for identity servers"));
        }
        if let Some(At { value, place }) = &text.path {
            if !value.starts_with('/') || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(self.context.wrong(*place, format!("`{value}` is not a path")));
            }
            flow.text = format!("{} {value}", flow.text);
        }
        let path = text.path.as_ref().map(|path| path.value.clone());
        let usual = flow.http.take().map(|asked| asked.path);
        let ordinary = path.is_none() && usual.is_none() && shows.looks.is_empty();
        if !ordinary {
            let path = path.or(usual).unwrap_or_else(|| HEALTH_CHECK.to_owned());
            flow.http = Some(Asked { path, looks: shows.looks.clone() });
        }
        Ok(())
    }

    /// `shows` of a row; nothing where it has none.
    pub(crate) fn shows(&self, text: Option<&At<ShowsText>>) -> Result<Shows, CaseError> {
        let Some(At { value: text, place }) = text else {
            return Ok(Shows::default());
        };
        let mut shows = Shows { status: Some(text.status.unwrap_or(OK)), ..Shows::default() };
        for (name, wanted) in &text.header {
            shows.add(Look::Header(name.clone()), self.wanted(wanted));
        }
        for (path, wanted) in &text.json {
            shows.add(Look::Json(path.clone()), self.wanted(wanted));
        }
        if let Some(wanted) = &text.text {
            shows.add(Look::Text, self.wanted(&Value::String(wanted.clone())));
        }
        let number = |value: &Value| match value {
            Value::Number(number) => Some(number.to_string()),
            Value::Null
            | Value::Bool(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => None,
        };
        let conditions = (&text.is, &text.at_least, text.grows);
        let condition = match (&text.metric, conditions) {
            (None, (None, None, None)) => return Ok(shows),
            (None, _) => {
                let message = "`is`, `atLeast` and `grows` in `shows` are about a `metric`";
                return Err(self.context.wrong(*place, message));
            }
            (Some(_), (Some(Value::Null), None, None)) => Some(Condition::Absent),
            (Some(_), (Some(value), None, None)) => number(value).map(Condition::Is),
            (Some(_), (None, Some(value), None)) => number(value).map(Condition::AtLeast),
            (Some(_), (None, None, Some(_))) => Some(Condition::Present),
            (Some(_), _) => None,
        };
        let Some(condition) = condition else {
            let message = "a `metric` has exactly one of `is`, `atLeast` (a number) and `grows`";
            return Err(self.context.wrong(*place, message));
        };
        if let Some(At { value, place }) = &text.metric {
            let Some(selector) = Selector::parse(value) else {
                let message = format!("`{value}` is not a metric");
                return Err(self
                    .context
                    .wrong(*place, message)
                    .help("write `name` or `name{label=\"value\"}`"));
            };
            let look = Look::Metric(selector);
            match text.grows {
                Some(Grows::Somehow(true)) => {
                    shows.growth.insert(look.to_string(), Growth::Somehow);
                }
                Some(Grows::By(number)) => {
                    shows.growth.insert(look.to_string(), Growth::By(number));
                }
                Some(Grows::Somehow(false)) => {
                    shows.growth.insert(look.to_string(), Growth::By(0));
                }
                None => {}
            }
            shows.add(look, condition);
        }
        Ok(shows)
    }

    /// What a value of `shows` stands for.
    fn wanted(&self, value: &Value) -> Condition {
        match value {
            Value::Null => Condition::Absent,
            Value::String(word) => match (word.as_str(), &self.context.book.facts.mode) {
                ("$any", _) => Condition::Present,
                ("$ns", _) => Condition::Is(self.context.namespace.clone()),
                ("$mode", Some(mode)) => Condition::Is(mode.clone()),
                (_, Some(_) | None) => Condition::Is(word.clone()),
            },
            other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                Condition::Is(other.to_string())
            }
        }
    }
}

impl Shows {
    pub(crate) fn add(&mut self, look: Look, condition: Condition) {
        self.conditions.insert(look.to_string(), condition);
        self.looks.push(look);
    }

    /// In the words of case files.
    pub(crate) fn words(&self) -> String {
        let each = self.conditions.iter().map(|(part, condition)| match self.growth.get(part) {
            Some(Growth::Somehow) => format!("{part} grows"),
            Some(Growth::By(number)) => format!("{part} grows by {number}"),
            None => format!("{part} {condition}"),
        });
        each.collect::<Vec<_>>().join(", ")
    }
}

/// `http://127.0.0.1:10256/healthz`.
fn split(url: &str) -> Option<(SocketAddr, String)> {
    let rest = url.strip_prefix("http://")?;
    let at = rest.find('/').unwrap_or(rest.len());
    let (address, path) = rest.split_at_checked(at)?;
    let path = if path.is_empty() { "/" } else { path };
    Some((address.parse().ok()?, path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_pages() {
        let show = |url| split(url).map(|(address, path)| format!("{address} {path}"));
        assert_eq!(show("http://127.0.0.1:80/a/b").as_deref(), Some("127.0.0.1:80 /a/b"));
        assert_eq!(show("http://[::1]:80").as_deref(), Some("[::1]:80 /"));
        for bad in ["https://127.0.0.1:80/", "http://host:80/", "127.0.0.1:80", "http://"] {
            assert_eq!(show(bad), None, "{bad}");
        }
    }
}
