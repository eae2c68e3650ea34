//! Names and passwords in addresses: used as they are meant, and never shown.

use http::Uri;
use http::uri::Authority;
use kube::Config;

/// What stands for a name and a password.
const HIDDEN: &str = "…";

/// Has the client log in with the name and the password in the server's address, as `kubectl` does,
/// unless the kubeconfig's user logs in otherwise; the address is without them afterwards.
pub(super) fn log_in(config: &mut Config) {
    let Some((person, plain)) = taken_apart(&config.cluster_url) else { return };
    config.cluster_url = plain;
    let user = &mut config.auth_info;
    let otherwise = [
        user.username.is_some(),
        user.token.is_some(),
        user.token_file.is_some(),
        user.exec.is_some(),
        user.auth_provider.is_some(),
    ];
    if !otherwise.contains(&true) {
        let (name, password) = person.split_once(':').unwrap_or((&person, ""));
        user.username = Some(decoded(name));
        user.password = Some(decoded(password).into());
    }
}

/// What is before the host of an address, and the address without it.
fn taken_apart(address: &Uri) -> Option<(String, Uri)> {
    let (person, host) = address.authority()?.as_str().rsplit_once('@')?;
    let mut parts = address.clone().into_parts();
    parts.authority = Some(host.parse::<Authority>().ok()?);
    Some((person.to_owned(), Uri::from_parts(parts).ok()?))
}

/// The text that `%41` and the like stand for.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| *first == b'%');
        let byte = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A text without the names and passwords of the addresses in it.
pub(super) fn redacted(text: &str) -> String {
    let mut clean = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        clean.push_str(before);
        let ends = |c: char| c.is_whitespace() || "/?#\"`<>".contains(c);
        let authority = after.find(ends).map_or(after, |end| &after[..end]);
        rest = match authority.rfind('@') {
            Some(host) => {
                clean.push_str(HIDDEN);
                &after[host..]
            }
            None => after,
        };
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_reads_names_and_passwords_of_addresses() {
        let check = |text: &str, want: &str| assert_eq!(redacted(text), want);
        check("http://person:abc@127.0.0.1:6443/ fails", "http://…@127.0.0.1:6443/ fails");
        check("(https://a:b@c@[::1]:1) and http://d@e", "(https://…@[::1]:1) and http://…@e");
        check("`https://host/path?who=a@b`", "`https://host/path?who=a@b`");
        check("mail person@host, http://host says a@b", "mail person@host, http://host says a@b");
        check("http://", "http://");
    }

    #[test]
    fn who_logs_in_is_taken_out_of_the_address() {
        let config = |address: &str| Config::new(address.parse().expect("an address"));
        let mut with = config("http://per%73on:a%3Ab@127.0.0.1:6443");
        log_in(&mut with);
        assert_eq!(with.cluster_url, "http://127.0.0.1:6443/");
        assert_eq!(with.auth_info.username.as_deref(), Some("person"));
        assert!(with.auth_info.password.is_some());
        assert_eq!(decoded("a%3Ab%"), "a:b%");

        let mut token = config("https://person:secret@host");
        token.auth_info.token_file = Some("file".to_owned());
        log_in(&mut token);
        assert_eq!(
            (token.cluster_url.to_string().as_str(), token.auth_info.username),
            ("https://host/", None)
        );

        let mut plain = config("https://host");
        log_in(&mut plain);
        assert_eq!(plain.auth_info.username, None);
    }
}
