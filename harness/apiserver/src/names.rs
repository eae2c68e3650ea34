//! Rules for names and for addresses, in Kubernetes' wording.

use std::net::IpAddr;

use crate::kinds::NameRule;

const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', \
     start with an alphabetic character, and end with an alphanumeric character \
     (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1123: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric \
     characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or \
     '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
     characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
     'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

/// What is wrong with a name, if anything.
pub(crate) fn fault(rule: NameRule, name: &str) -> Option<String> {
    let (most, fine, text) = match rule {
        NameRule::Label1035 => (
            63,
            is_label(name) && name.starts_with(|one: char| one.is_ascii_lowercase()),
            LABEL_1035,
        ),
        NameRule::Label1123 => (63, is_label(name), LABEL_1123),
        NameRule::Subdomain => (253, name.split('.').all(is_label), SUBDOMAIN),
        NameRule::PathSegment => {
            let fine =
                !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '%']);
            (253, fine, "may not be '.' or '..', or contain '/' or '%'")
        }
    };
    if !fine {
        Some(text.to_owned())
    } else if name.len() > most {
        Some(format!("must be no more than {most} characters"))
    } else {
        None
    }
}

fn is_label(text: &str) -> bool {
    let fine = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    !text.is_empty()
        && text.chars().all(|letter| fine(letter) || letter == '-')
        && text.starts_with(fine)
        && text.ends_with(fine)
}

/// Why traffic may not be sent to an address that an object names, if it may not.
pub(crate) fn special_address(address: IpAddr) -> Option<&'static str> {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let link_multicast = match address {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    };
    if address.is_unspecified() {
        Some("may not be unspecified (0.0.0.0 or ::)")
    } else if address.is_loopback() {
        Some("may not be in the loopback range (127.0.0.0/8, ::1/128)")
    } else if link_local {
        Some("may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    } else if link_multicast {
        Some("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_by_the_rule_of_their_kind() {
        let long = "a".repeat(64);
        let table = [
            (NameRule::Label1035, "web-1", true),
            (NameRule::Label1035, "1web", false),
            (NameRule::Label1035, "Web", false),
            (NameRule::Label1035, "web-", false),
            (NameRule::Label1035, "a.b", false),
            (NameRule::Label1035, long.as_str(), false),
            (NameRule::Label1123, "1web", true),
            (NameRule::Label1123, "", false),
            (NameRule::Subdomain, "a.b-c.d", true),
            (NameRule::Subdomain, "a..b", false),
            (NameRule::Subdomain, long.as_str(), true),
            (NameRule::PathSegment, "fd00::1", true),
            (NameRule::PathSegment, "a/b", false),
        ];
        for (rule, name, fine) in table {
            assert_eq!(fault(rule, name).is_none(), fine, "{rule:?} {name:?}");
        }
    }
}
