//! CoreDNS's configuration: the cluster's domain from the API server, everything else from a
//! stand-in for the resolver of the site, which knows a few names and says of all others that they
//! do not exist. Nothing is cached, so that an answer is as new as the API server's.

use std::fmt::Write;

use touchstone_spec::{CLUSTER_DOMAIN, DNS_PORT, SITE_NAMES, SiteRecord};

/// Port of the stand-in, on the loopback of the name server.
const SITE_PORT: u16 = 5300;

/// The configuration; `watch` says where the API server is, `more` which plugins there are besides.
pub(crate) fn corefile(watch: &str, more: &[&str]) -> String {
    let mut site = String::new();
    let mut template = |kind: &str, name: &str, answer: String| {
        let pattern = name.replace('.', "\\.");
        // Writing to a string does not fail.
        let _ = writeln!(
            site,
            "    template IN {kind} {{\n        match \"^{pattern}$\"\n        answer \"{name} 5 IN \
             {answer}\"\n        fallthrough\n    }}"
        );
    };
    for known in SITE_NAMES {
        match known.is {
            SiteRecord::Host(v4, v6) => {
                template("A", known.name, format!("A {v4}"));
                template("AAAA", known.name, format!("AAAA {v6}"));
            }
            // The plugin itself goes on to the host.
            SiteRecord::AliasOf(other) => template("ANY", known.name, format!("CNAME {other}")),
        }
    }
    let more: String = more.iter().map(|plugin| format!("    {plugin}\n")).collect();
    format!(
        ".:{DNS_PORT} {{\n    errors\n{more}    kubernetes {CLUSTER_DOMAIN} in-addr.arpa ip6.arpa \
         {{\n{watch}        ttl 5\n    }}\n    forward . 127.0.0.1:{SITE_PORT}\n    \
         loadbalance\n}}\n.:{SITE_PORT} {{\n    bind 127.0.0.1\n    errors\n{site}    \
         template ANY ANY {{\n        rcode NXDOMAIN\n    }}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_knows_the_names_of_the_site() {
        for text in
            [corefile("        endpoint http://127.0.0.1:6443\n", &[]), corefile("", &["ready"])]
        {
            assert!(text.contains("match \"^host\\.example\\.test\\.$\""), "{text}");
            assert!(text.contains("answer \"host.example.test. 5 IN A 192.0.2.53\""), "{text}");
            let alias = "answer \"alias.example.test. 5 IN CNAME host.example.test.\"";
            assert!(text.contains(alias), "{text}");
            assert_eq!(text.matches('{').count(), text.matches('}').count());
        }
    }
}
