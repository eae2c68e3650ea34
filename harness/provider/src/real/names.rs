//! Names and labels of what a run makes in a cluster.

use serde_json::{Value, json};

/// Label of everything that a run makes; its value is the run's tag.
pub(super) const RUN_LABEL: &str = "touchstone/run";
/// How the names of a run's namespaces begin.
const PREFIX: &str = "touchstone-";

/// The names of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    /// Short and unique: part of names and value of labels.
    pub(super) tag: String,
}

impl Names {
    /// The names of a run with that id.
    pub(super) fn of(run: &str) -> Names {
        // The last letters tell runs of the same second apart.
        let letters: String = run
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .map(|c| c.to_ascii_lowercase())
            .collect();
        let short = letters.get(letters.len().saturating_sub(12)..).unwrap_or_default().to_owned();
        Names { tag: short }
    }

    /// The namespace of the agents.
    pub(super) fn home(&self) -> String {
        format!("{PREFIX}{}", self.tag)
    }

    /// How namespaces of the cases of one cluster begin.
    pub(super) fn of_cases(&self, cluster: &str) -> String {
        format!("{PREFIX}{}-{cluster}-", self.tag)
    }

    /// The selector of everything of this run.
    pub(super) fn selector(&self) -> String {
        format!("labelSelector={}%3D{}", RUN_LABEL.replace('/', "%2F"), self.tag)
    }

    /// The selector of everything of any run.
    pub(super) fn any_selector() -> String {
        format!("labelSelector={}", RUN_LABEL.replace('/', "%2F"))
    }

    /// Marks an object as the run's.
    pub(super) fn mark(&self, object: &mut Value) {
        let labels = &mut object["metadata"]["labels"];
        if !labels.is_object() {
            *labels = json!({});
        }
        labels[RUN_LABEL] = json!(self.tag);
    }

    /// A namespace of the run.
    pub(super) fn namespace(&self, name: &str) -> Value {
        let mut object = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name },
        });
        self.mark(&mut object);
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_begin_alike_and_are_short() {
        let names = Names::of("20261126-073146-beef");
        assert_eq!(names.home(), "touchstone-26073146beef");
        assert!(names.of_cases("c1").starts_with(&names.home()));
        let mut object = json!({ "metadata": { "name": "a", "labels": { "b": "c" } } });
        names.mark(&mut object);
        assert_eq!(object["metadata"]["labels"][RUN_LABEL], json!(names.tag));
        assert_eq!(object["metadata"]["labels"]["b"], json!("c"));
    }
}
