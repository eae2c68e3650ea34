//! What the harness may do in a cluster that somebody else owns, and the only way in which it does
//! anything there.
//!
//! [`RIGHTS`] is the one list. `touchstone cluster rbac` prints it, and every request passes a
//! check against it before it leaves, so nothing more is used than what is printed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, Request};
use k8s_openapi::api::core::v1::Pod;
use kube::client::{Body, ClientBuilder};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tower::filter::FilterLayer;

use super::trouble;
use super::userinfo::{log_in, redacted};
use crate::ClusterError;

/// How long a connection to the API server may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Something that the harness may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Right {
    /// API group; empty for the core.
    pub(crate) group: &'static str,
    /// Resource, with its sub-resource.
    pub(crate) resource: &'static str,
    /// What it may do with it.
    pub(crate) verbs: &'static [&'static str],
    /// What for.
    pub(crate) why: &'static str,
}

const DISCOVERY: &str = "discovery.k8s.io";

/// Everything that a run needs.
pub(crate) const RIGHTS: &[Right] = &[
    Right {
        group: "",
        resource: "namespaces",
        verbs: &["create", "list", "delete"],
        why: "a namespace for the agents and one for each case; the run's own are found by label",
    },
    Right { group: "", resource: "nodes", verbs: &["list"], why: "names and addresses of nodes" },
    Right {
        group: "networking.k8s.io",
        resource: "servicecidrs",
        verbs: &["list"],
        why: "the ranges of cluster IPs",
    },
    Right {
        group: "",
        resource: "services",
        verbs: &["list", "create", "update", "delete"],
        why: "addresses and node ports in use; the Services of cases",
    },
    Right {
        group: "",
        resource: "services/status",
        verbs: &["update"],
        why: "addresses of load balancers, which the harness plays",
    },
    Right {
        group: DISCOVERY,
        resource: "endpointslices",
        verbs: &["list", "create", "update", "delete"],
        why: "the endpoints of the name server; the endpoints of cases",
    },
    Right {
        group: "",
        resource: "pods",
        verbs: &["create", "list", "delete"],
        why: "agents, and whether they run",
    },
    Right {
        group: "",
        resource: "pods/status",
        verbs: &["patch"],
        why: "the readiness gates of pods that a Deployment of a case runs",
    },
    Right {
        group: "apps",
        resource: "deployments",
        verbs: &["create", "update"],
        why: "pods that the cluster's own controllers run and list as endpoints of a case",
    },
    Right {
        group: "",
        resource: "pods/portforward",
        verbs: &["get", "create"],
        why: "connections to the agents; which verb is asked for depends on the release",
    },
];

/// What a run needs besides, when it may do what harms a shared cluster.
pub(crate) const HARMFUL: &[Right] = &[Right {
    group: "",
    resource: "nodes",
    verbs: &["patch"],
    why: "the zones of nodes, which are put back at the end of a run",
}];

/// Whether a run may do what harms a shared cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// No.
    Spared,
    /// Yes: the cluster is there for it.
    Allowed,
}

/// The rights of a run.
pub(crate) fn rights(harm: Harm) -> Vec<Right> {
    let more: &[Right] = match harm {
        Harm::Spared => &[],
        Harm::Allowed => HARMFUL,
    };
    RIGHTS.iter().chain(more).copied().collect()
}

/// The ClusterRole that a run needs, as YAML.
#[must_use]
pub fn rbac(harm: Harm) -> String {
    let mut text =
        "# Namespaces of a run are new each time, so their rights cannot be limited to names.\n\
        # Bind it to whoever runs touchstone:\n\
        #   kubectl create clusterrolebinding touchstone --clusterrole=touchstone --user=NAME\n\
        apiVersion: rbac.authorization.k8s.io/v1\n\
        kind: ClusterRole\n\
        metadata:\n  name: touchstone\nrules:\n"
            .to_owned();
    for Right { group, resource, verbs, why } in rights(harm) {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "  # {why}\n  - apiGroups: [\"{group}\"]\n    resources: [\"{resource}\"]\n    \
             verbs: [{}]\n",
            verbs.iter().map(|verb| format!("\"{verb}\"")).collect::<Vec<_>>().join(", ")
        );
    }
    text
}

/// What a request asks of the API: group, resource and verb; none where it asks for no object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Asked {
    pub(crate) group: String,
    pub(crate) resource: String,
    pub(crate) verb: &'static str,
}

impl Asked {
    /// As the API server's authorizer reads a request.
    pub(crate) fn of(method: &Method, path: &str) -> Option<Asked> {
        let mut words = path.split('/').filter(|word| !word.is_empty());
        let group = match words.next()? {
            "api" => {
                words.next()?;
                String::new()
            }
            "apis" => {
                let group = words.next()?.to_owned();
                words.next()?;
                group
            }
            _ => return None,
        };
        let mut rest: Vec<&str> = words.collect();
        if rest.first() == Some(&"namespaces") && rest.len() > 2 {
            rest.drain(..2);
        }
        let resource = match rest.get(2) {
            Some(sub) => format!("{}/{sub}", rest.first()?),
            None => (*rest.first()?).to_owned(),
        };
        let named = rest.len() > 1;
        let verb = match *method {
            Method::GET if named => "get",
            Method::GET => "list",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if named => "delete",
            _ => "deletecollection",
        };
        Some(Asked { group, resource, verb })
    }

    fn is_allowed(&self, rights: &[Right]) -> bool {
        // Whoever may log in may ask what it may do.
        let own = self.group == "authorization.k8s.io" && self.verb == "create";
        own || rights.iter().any(|right| {
            right.group == self.group
                && right.resource == self.resource
                && right.verbs.contains(&self.verb)
        })
    }
}

/// What was asked for so far.
pub(crate) type Used = Arc<Mutex<BTreeSet<Asked>>>;

/// The way into a cluster.
#[derive(Clone)]
pub(crate) struct Access {
    client: Client,
    server: String,
    harm: Harm,
    used: Used,
}

impl Access {
    /// Connects to the cluster of a kubeconfig and finds out whether it may do what it must.
    pub(crate) async fn open(kubeconfig: &Path, harm: Harm) -> Result<Access, ClusterError> {
        let access = Access::connect(kubeconfig, harm).await?;
        access.version().await?;
        access.check_rights().await?;
        Ok(access)
    }

    async fn connect(kubeconfig: &Path, harm: Harm) -> Result<Access, ClusterError> {
        // More than one may try; all of them want the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let unread = |why: &dyn std::fmt::Display| {
            ClusterError::new(
                format!("failed to read the kubeconfig {}", kubeconfig.display()),
                redacted(&why.to_string()),
            )
        };
        let text = std::fs::read_to_string(kubeconfig).map_err(|error| unread(&error))?;
        drop(text);
        let file = Kubeconfig::read_from(kubeconfig).map_err(|error| unread(&error))?;
        let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .map_err(|error| unread(&error))?;
        log_in(&mut config);
        config.connect_timeout = Some(CONNECT_LIMIT);
        let server = config.cluster_url.to_string();
        let used = Used::default();
        let layer = {
            let (used, rights) = (Arc::clone(&used), rights(harm));
            FilterLayer::new(move |request: Request<Body>| {
                let path = request.uri().path();
                if let Some(asked) = Asked::of(request.method(), path) {
                    if !asked.is_allowed(&rights) {
                        let why = format!("{} {path} is not among the rights of a run", asked.verb);
                        return Err(tower::BoxError::from(why));
                    }
                    used.lock().unwrap_or_else(PoisonError::into_inner).insert(asked);
                }
                Ok(request)
            })
        };
        let builder = ClientBuilder::try_from(config).map_err(|error| unread(&error))?;
        let client = builder.with_layer(&layer).build();
        Ok(Access { client, server, harm, used })
    }

    /// Address of the API server, for messages.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    pub(crate) fn harm(&self) -> Harm {
        self.harm
    }

    /// What was asked for so far.
    pub(crate) fn used(&self) -> BTreeSet<Asked> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The cluster's release: `v1.37.2`.
    pub(crate) async fn version(&self) -> Result<String, ClusterError> {
        let answer = self.send(Method::GET, "/version", None).await;
        let answer = answer.map_err(|error| self.failed("ask the API server's version", &error))?;
        Ok(answer["gitVersion"].as_str().unwrap_or_default().to_owned())
    }

    async fn check_rights(&self) -> Result<(), ClusterError> {
        let asked: Vec<(Right, &str)> = rights(self.harm)
            .into_iter()
            // Which of the two is needed depends on the release.
            .filter(|right| right.resource != "pods/portforward")
            .flat_map(|right| right.verbs.iter().map(move |verb| (right, *verb)))
            .collect();
        let reviews = asked.iter().map(|(right, verb)| {
            let mut words = right.resource.split('/');
            let resource = words.next();
            let review = json!({
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": { "resourceAttributes": {
                    "group": right.group, "resource": resource, "verb": verb,
                    "subresource": words.next().unwrap_or_default(),
                } },
            });
            async move {
                let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
                match self.send(Method::POST, path, Some(&review)).await {
                    Ok(answer) => Ok(answer["status"]["allowed"].as_bool().unwrap_or(false)),
                    // A server that knows no reviews refuses what it must when it is asked.
                    Err(error) if trouble::code(&error) == Some(404) => Ok(true),
                    Err(error) => Err(self.failed("ask what the kubeconfig's user may do", &error)),
                }
            }
        });
        let allowed = futures::future::join_all(reviews).await.into_iter();
        let allowed: Vec<bool> = allowed.collect::<Result<_, ClusterError>>()?;
        let missing: Vec<String> = asked
            .iter()
            .zip(allowed)
            .filter(|(_, allowed)| !allowed)
            .map(|((right, verb), _)| match right.group {
                "" => format!("{verb} {}", right.resource),
                group => format!("{verb} {}.{group}", right.resource),
            })
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(ClusterError::new(
            format!("the kubeconfig's user may not do at {} what a run needs", self.server),
            format!("{}; {}", missing.join(", "), trouble::what_to_grant(self.harm)),
        ))
    }

    /// Every object of a list.
    pub(crate) async fn list(&self, path: &str, query: &str) -> Result<Vec<Value>, ClusterError> {
        let path = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        let answer = self.send(Method::GET, &path, None).await;
        let mut answer = answer.map_err(|error| self.failed(&format!("list {path}"), &error))?;
        match answer["items"].take() {
            Value::Array(items) => Ok(items),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Object(_) => Ok(Vec::new()),
        }
    }

    /// One request; the answer as JSON.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, kube::Error> {
        let kind = if method == Method::PATCH {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        self.send_as(kind, method, path, body).await
    }

    /// Patches an object whose lists keep what the patch does not name.
    pub(crate) async fn patch_lists(
        &self,
        path: &str,
        patch: &Value,
    ) -> Result<Value, kube::Error> {
        self.send_as("application/strategic-merge-patch+json", Method::PATCH, path, Some(patch))
            .await
    }

    async fn send_as(
        &self,
        kind: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, kube::Error> {
        let bytes = body.map(Value::to_string).unwrap_or_default().into_bytes();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, kind)
            .body(bytes)
            .map_err(kube::Error::HttpError)?;
        self.client.request(request).await
    }

    /// Creates an object unless it exists.
    pub(crate) async fn need(&self, path: &str, object: &Value) -> Result<(), ClusterError> {
        match self.send(Method::POST, path, Some(object)).await {
            Ok(_) => Ok(()),
            Err(error) if trouble::code(&error) == Some(409) => Ok(()),
            Err(error) => Err(self.failed(&format!("create {}", named(path, object)), &error)),
        }
    }

    /// Deletes an object; one that is gone already is no error.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), ClusterError> {
        match self.send(Method::DELETE, path, None).await {
            Ok(_) => Ok(()),
            Err(error) if trouble::code(&error) == Some(404) => Ok(()),
            Err(error) => Err(self.failed(&format!("delete {path}"), &error)),
        }
    }

    /// Pods of a namespace, for connections to them.
    pub(crate) fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// What went wrong when this was tried, in words.
    pub(crate) fn failed(&self, act: &str, error: &kube::Error) -> ClusterError {
        let why = trouble::words(error, &self.server, self.harm);
        ClusterError::new(format!("failed to {act}"), why)
    }
}

fn named(path: &str, object: &Value) -> String {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    format!("{path}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, path: &str, want: &str) {
        let got = Asked::of(&method, path);
        let got = got.map(|asked| format!("{} {}.{}", asked.verb, asked.resource, asked.group));
        assert_eq!(got.as_deref().unwrap_or("nothing"), want, "{method} {path}");
    }

    #[test]
    fn requests_are_read_as_the_authorizer_does() {
        check(Method::GET, "/version", "nothing");
        check(Method::GET, "/api/v1/nodes", "list nodes.");
        check(Method::PATCH, "/api/v1/nodes/n1", "patch nodes.");
        check(Method::POST, "/api/v1/namespaces", "create namespaces.");
        check(Method::DELETE, "/api/v1/namespaces/t1", "delete namespaces.");
        check(Method::DELETE, "/api/v1/namespaces/t1/pods", "deletecollection pods.");
        check(Method::GET, "/api/v1/namespaces/t1/pods", "list pods.");
        check(Method::GET, "/api/v1/namespaces/t1/pods/a/portforward", "get pods/portforward.");
        check(Method::PUT, "/api/v1/namespaces/t1/services/web/status", "update services/status.");
        check(
            Method::PUT,
            "/apis/discovery.k8s.io/v1/namespaces/t1/endpointslices/web-1",
            "update endpointslices.discovery.k8s.io",
        );
    }

    #[test]
    fn nothing_but_rights_is_allowed() {
        let allowed = |method: Method, path: &str, harm| {
            Asked::of(&method, path).expect("an object").is_allowed(&rights(harm))
        };
        assert!(allowed(Method::GET, "/api/v1/nodes", Harm::Spared));
        assert!(!allowed(Method::PATCH, "/api/v1/nodes/n1", Harm::Spared));
        assert!(allowed(Method::PATCH, "/api/v1/nodes/n1", Harm::Allowed));
        assert!(!allowed(Method::DELETE, "/api/v1/nodes/n1", Harm::Allowed));
        assert!(!allowed(Method::GET, "/api/v1/secrets", Harm::Allowed));
        let deployments = "/apis/apps/v1/namespaces/t1/deployments";
        assert!(allowed(Method::POST, deployments, Harm::Spared));
        assert!(allowed(Method::PUT, &format!("{deployments}/web-n1"), Harm::Spared));
        let status = "/api/v1/namespaces/t1/pods/web-n1-x/status";
        assert!(allowed(Method::PATCH, status, Harm::Spared));
    }

    #[test]
    fn what_is_printed_is_a_cluster_role() {
        let text = rbac(Harm::Spared);
        assert!(text.contains("kind: ClusterRole\n"), "{text}");
        for Right { resource, verbs, .. } in RIGHTS {
            assert!(text.contains(&format!("resources: [\"{resource}\"]")), "{text}");
            assert!(verbs.iter().all(|verb| text.contains(&format!("\"{verb}\""))), "{text}");
        }
        let patches = |text: &str| text.matches("verbs: [\"patch\"]").count();
        assert_eq!((patches(&text), patches(&rbac(Harm::Allowed))), (1, 2), "{text}");
    }
}
