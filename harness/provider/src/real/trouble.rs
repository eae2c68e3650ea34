//! Trouble with an API server or with pods, in words that say what to do.

use std::error::Error as _;

use serde_json::Value;

use super::access::Harm;
use super::userinfo::redacted;

/// The HTTP status of a refusal.
pub(super) fn code(error: &kube::Error) -> Option<u16> {
    if let kube::Error::Api(status) = error { Some(status.code) } else { None }
}

/// What prints the rights of a run; those of one that may do harm are more.
pub(super) fn what_to_grant(harm: Harm) -> &'static str {
    match harm {
        Harm::Spared => "`touchstone cluster rbac` prints what to grant",
        Harm::Allowed => "`touchstone cluster rbac --harmful` prints what to grant",
    }
}

/// What an error of a request means.
pub(super) fn words(error: &kube::Error, server: &str, harm: Harm) -> String {
    redacted(&in_full(error, server, harm))
}

fn in_full(error: &kube::Error, server: &str, harm: Harm) -> String {
    if let kube::Error::Api(status) = error {
        return match status.code {
            401 => format!(
                "{server} does not accept the kubeconfig's credentials ({}); renew them: `kubectl \
                 get nodes` with the same kubeconfig must work",
                status.message
            ),
            403 => format!("{}; {}", status.message, what_to_grant(harm)),
            _ => status.message.clone(),
        };
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        let more = next.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = next.source();
    }
    if is_unreachable(&text) {
        format!(
            "{server} cannot be reached ({text}); does the cluster run, and does `kubectl get \
             nodes` with the same kubeconfig work from here?"
        )
    } else {
        text
    }
}

fn is_unreachable(text: &str) -> bool {
    let text = text.to_lowercase();
    ["connect", "timed out", "unreachable", "dns", "refused"].iter().any(|word| text.contains(word))
}

/// Why a pod will never run as it stands, with the remedy; none while there is hope.
pub(super) fn of_pod(pod: &Value, image: &str, pulled: bool) -> Option<String> {
    let status = &pod["status"];
    if matches!(status["phase"].as_str(), Some("Failed" | "Succeeded")) {
        let ended = &status["containerStatuses"][0]["state"]["terminated"];
        let why = [&status["reason"], &status["message"], &ended["reason"], &ended["message"]];
        let why: Vec<&str> = why.into_iter().filter_map(Value::as_str).collect();
        return Some(format!("it ended: {}", why.join(", ")));
    }
    let waiting = &status["containerStatuses"][0]["state"]["waiting"];
    let reason = waiting["reason"].as_str()?;
    let message = waiting["message"].as_str().unwrap_or_default();
    let remedy = match reason {
        "ErrImageNeverPull" | "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" => {
            remedy_for_image(message, image, pulled)
        }
        "CrashLoopBackOff"
        | "CreateContainerError"
        | "CreateContainerConfigError"
        | "RunContainerError" => "what the node says of it is all there is".to_owned(),
        _ => return None,
    };
    Some(format!("{reason}: {message}; {remedy}"))
}

fn remedy_for_image(message: &str, image: &str, pulled: bool) -> String {
    let message = message.to_lowercase();
    let closed = ["401", "403", "unauthorized", "denied", "authorization", "authentication"];
    if !pulled {
        format!(
            "the nodes do not have the image {image}: write it with `touchstone cluster image \
             --out FILE` and load it on every node (`kind load image-archive FILE`, `ctr -n k8s.io \
             images import FILE`), or push it to a registry and name it with --agent-image"
        )
    } else if closed.iter().any(|word| message.contains(word)) {
        format!(
            "the registry asks for credentials: let the nodes pull {image} (the image may be \
             public, it holds no secret), or load it on every node"
        )
    } else {
        format!("the nodes cannot pull {image}: is the reference right, and reached from them?")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn waiting(reason: &str, message: &str) -> Value {
        let state = json!({ "waiting": { "reason": reason, "message": message } });
        json!({ "status": { "phase": "Pending", "containerStatuses": [{ "state": state }] } })
    }

    #[test]
    fn images_that_are_missing_come_with_the_remedy() {
        let said = of_pod(&waiting("ErrImageNeverPull", "not present"), "agent:1", false);
        assert!(said.is_some_and(|said| said.contains("touchstone cluster image --out FILE")));
        let said = of_pod(&waiting("ErrImagePull", "pull access denied"), "r.test/agent:1", true);
        assert!(said.is_some_and(|said| said.contains("asks for credentials")));
        let said = of_pod(&waiting("ImagePullBackOff", "no such host"), "r.test/agent:1", true);
        assert!(said.is_some_and(|said| said.contains("is the reference right")));
    }

    #[test]
    fn there_is_hope_while_a_container_is_made() {
        assert_eq!(of_pod(&waiting("ContainerCreating", ""), "agent:1", false), None);
        assert_eq!(of_pod(&json!({ "status": { "phase": "Running" } }), "agent:1", false), None);
        let ended = json!({ "status": { "phase": "Failed", "reason": "Evicted" } });
        assert_eq!(of_pod(&ended, "agent:1", false).as_deref(), Some("it ended: Evicted"));
    }
}
