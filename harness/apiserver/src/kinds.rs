//! The table of served kinds: adding a kind is adding a row here.

use crate::table::{self, Column};

/// What the `status` sub-resource of a kind does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatusOf {
    /// No such sub-resource: status, if any, is a field like others.
    Absent,
    /// The sub-resource alone changes status; an object may be created with one.
    KeptOnCreate,
    /// The sub-resource alone changes status; it is emptied on creation.
    ClearedOnCreate,
}

/// Which rule the names of a kind follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameRule {
    /// A lowercase DNS label that begins with a letter (RFC 1035).
    Label1035,
    /// A lowercase DNS label (RFC 1123).
    Label1123,
    /// Lowercase DNS labels joined by dots (RFC 1123).
    Subdomain,
    /// Anything that fits into one segment of a path.
    PathSegment,
}

/// Defaulting, allocation and validation special to a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rules {
    Common,
    Namespace,
    Service,
    EndpointSlice,
    ServiceCidr,
    Pod,
    Event,
}

/// A list that patches merge by key instead of replacing it.
#[derive(Debug)]
pub(crate) struct MergeList {
    /// Dotted path, lists along the way left out (`spec.containers.env`).
    pub(crate) path: &'static str,
    /// Fields that name an element, the strategic one first; empty for a set of plain values.
    pub(crate) keys: &'static [&'static str],
}

/// One served kind.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) singular: &'static str,
    pub(crate) short: &'static [&'static str],
    pub(crate) namespaced: bool,
    pub(crate) status: StatusOf,
    /// Whether `metadata.generation` counts changes of the specification.
    pub(crate) generation: bool,
    pub(crate) names: NameRule,
    pub(crate) rules: Rules,
    pub(crate) merge: &'static [MergeList],
    /// Fields kept beside the encoded object, because watchers select by them.
    pub(crate) indexed: &'static [&'static str],
    pub(crate) columns: &'static [Column],
    pub(crate) row: table::Row,
}

impl Kind {
    /// `v1` or `group/version`.
    pub(crate) fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// The resource as messages name it: `services`, `endpointslices.discovery.k8s.io`.
    pub(crate) fn qualified(&self) -> String {
        match self.group {
            "" => self.plural.to_owned(),
            group => format!("{}.{group}", self.plural),
        }
    }
}

const OWNERS: MergeList = MergeList { path: "metadata.ownerReferences", keys: &["uid"] };
const FINALIZERS: MergeList = MergeList { path: "metadata.finalizers", keys: &[] };
const CONDITIONS: MergeList = MergeList { path: "status.conditions", keys: &["type"] };
const COMMON: &[MergeList] = &[OWNERS, FINALIZERS, CONDITIONS];

/// Every served kind. The position in the table is the kind's number in the store.
pub(crate) static KINDS: &[Kind] = &[
    Kind {
        group: "",
        version: "v1",
        kind: "Namespace",
        plural: "namespaces",
        singular: "namespace",
        short: &["ns"],
        namespaced: false,
        status: StatusOf::ClearedOnCreate,
        generation: false,
        names: NameRule::Label1123,
        rules: Rules::Namespace,
        merge: COMMON,
        indexed: &[],
        columns: table::NAMESPACE,
        row: table::namespace,
    },
    Kind {
        group: "",
        version: "v1",
        kind: "Node",
        plural: "nodes",
        singular: "node",
        short: &["no"],
        namespaced: false,
        status: StatusOf::KeptOnCreate,
        generation: false,
        names: NameRule::Subdomain,
        rules: Rules::Common,
        merge: &[
            OWNERS,
            FINALIZERS,
            CONDITIONS,
            MergeList { path: "spec.podCIDRs", keys: &[] },
            MergeList { path: "status.addresses", keys: &["type"] },
        ],
        indexed: &[],
        columns: table::NODE,
        row: table::node,
    },
    Kind {
        group: "",
        version: "v1",
        kind: "Service",
        plural: "services",
        singular: "service",
        short: &["svc"],
        namespaced: true,
        status: StatusOf::ClearedOnCreate,
        generation: false,
        names: NameRule::Label1035,
        rules: Rules::Service,
        merge: &[
            OWNERS,
            FINALIZERS,
            CONDITIONS,
            MergeList { path: "spec.ports", keys: &["port", "protocol"] },
        ],
        indexed: &["spec.clusterIP", "spec.type"],
        columns: table::SERVICE,
        row: table::service,
    },
    Kind {
        group: "",
        version: "v1",
        kind: "Pod",
        plural: "pods",
        singular: "pod",
        short: &["po"],
        namespaced: true,
        status: StatusOf::ClearedOnCreate,
        generation: true,
        names: NameRule::Subdomain,
        rules: Rules::Pod,
        merge: &[
            OWNERS,
            FINALIZERS,
            CONDITIONS,
            MergeList { path: "spec.containers", keys: &["name"] },
            MergeList { path: "spec.containers.env", keys: &["name"] },
            MergeList { path: "spec.containers.ports", keys: &["containerPort", "protocol"] },
            MergeList { path: "spec.containers.volumeMounts", keys: &["mountPath"] },
            MergeList { path: "spec.initContainers", keys: &["name"] },
            MergeList { path: "spec.initContainers.env", keys: &["name"] },
            MergeList { path: "spec.initContainers.volumeMounts", keys: &["mountPath"] },
            MergeList { path: "spec.volumes", keys: &["name"] },
            MergeList { path: "spec.imagePullSecrets", keys: &["name"] },
            MergeList { path: "status.podIPs", keys: &["ip"] },
        ],
        indexed: &[],
        columns: table::POD,
        row: table::pod,
    },
    Kind {
        group: "",
        version: "v1",
        kind: "ConfigMap",
        plural: "configmaps",
        singular: "configmap",
        short: &["cm"],
        namespaced: true,
        status: StatusOf::Absent,
        generation: false,
        names: NameRule::Subdomain,
        rules: Rules::Common,
        merge: COMMON,
        indexed: &[],
        columns: table::CONFIG_MAP,
        row: table::config_map,
    },
    Kind {
        group: "",
        version: "v1",
        kind: "Endpoints",
        plural: "endpoints",
        singular: "endpoints",
        short: &["ep"],
        namespaced: true,
        status: StatusOf::Absent,
        generation: false,
        names: NameRule::Subdomain,
        rules: Rules::Common,
        merge: COMMON,
        indexed: &[],
        columns: table::ENDPOINTS,
        row: table::endpoints,
    },
    Kind {
        group: "",
        version: "v1",
        kind: "Event",
        plural: "events",
        singular: "event",
        short: &["ev"],
        namespaced: true,
        status: StatusOf::Absent,
        generation: false,
        names: NameRule::Subdomain,
        rules: Rules::Event,
        merge: COMMON,
        indexed: &[],
        columns: table::EVENT,
        row: table::event,
    },
    Kind {
        group: "discovery.k8s.io",
        version: "v1",
        kind: "EndpointSlice",
        plural: "endpointslices",
        singular: "endpointslice",
        short: &[],
        namespaced: true,
        status: StatusOf::Absent,
        generation: true,
        names: NameRule::Subdomain,
        rules: Rules::EndpointSlice,
        merge: COMMON,
        indexed: &[],
        columns: table::ENDPOINT_SLICE,
        row: table::endpoint_slice,
    },
    Kind {
        group: "events.k8s.io",
        version: "v1",
        kind: "Event",
        plural: "events",
        singular: "event",
        short: &["ev"],
        namespaced: true,
        status: StatusOf::Absent,
        generation: false,
        names: NameRule::Subdomain,
        rules: Rules::Event,
        merge: COMMON,
        indexed: &[],
        columns: table::EVENT,
        row: table::event,
    },
    Kind {
        group: "networking.k8s.io",
        version: "v1",
        kind: "ServiceCIDR",
        plural: "servicecidrs",
        singular: "servicecidr",
        short: &[],
        namespaced: false,
        status: StatusOf::ClearedOnCreate,
        generation: false,
        names: NameRule::Subdomain,
        rules: Rules::ServiceCidr,
        merge: COMMON,
        indexed: &[],
        columns: table::SERVICE_CIDR,
        row: table::service_cidr,
    },
    // No case has any; some proxies do not start where they cannot be listed.
    Kind {
        group: "networking.k8s.io",
        version: "v1",
        kind: "NetworkPolicy",
        plural: "networkpolicies",
        singular: "networkpolicy",
        short: &["netpol"],
        namespaced: true,
        status: StatusOf::Absent,
        generation: true,
        names: NameRule::Subdomain,
        rules: Rules::Common,
        merge: COMMON,
        indexed: &[],
        columns: table::NETWORK_POLICY,
        row: table::network_policy,
    },
    Kind {
        group: "networking.k8s.io",
        version: "v1",
        kind: "IPAddress",
        plural: "ipaddresses",
        singular: "ipaddress",
        short: &["ip"],
        namespaced: false,
        status: StatusOf::Absent,
        generation: false,
        names: NameRule::PathSegment,
        rules: Rules::Common,
        merge: COMMON,
        indexed: &[],
        columns: table::IP_ADDRESS,
        row: table::ip_address,
    },
];

/// The number of a kind in [`KINDS`]: proof that the kind exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KindId(usize);

impl KindId {
    pub(crate) fn index(self) -> usize {
        self.0
    }

    pub(crate) fn def(self) -> &'static Kind {
        &KINDS[self.0]
    }

    pub(crate) fn all() -> impl Iterator<Item = KindId> {
        (0..KINDS.len()).map(KindId)
    }

    /// By what an object says of itself.
    pub(crate) fn of_object(api_version: &str, kind: &str) -> Option<KindId> {
        KindId::all().find(|id| id.def().kind == kind && id.def().api_version() == api_version)
    }

    /// By kind alone (`Service`), or with its version (`events.k8s.io/v1/Event`).
    pub(crate) fn named(name: &str) -> Option<KindId> {
        match name.rsplit_once('/') {
            Some((api_version, kind)) => KindId::of_object(api_version, kind),
            None => KindId::all().find(|id| id.def().kind == name),
        }
    }

    /// By a segment of a request's path.
    pub(crate) fn of_resource(group: &str, version: &str, plural: &str) -> Option<KindId> {
        KindId::all().find(|id| {
            let def = id.def();
            def.group == group && def.version == version && def.plural == plural
        })
    }
}
