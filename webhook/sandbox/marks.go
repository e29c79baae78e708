// Package sandbox is the contract that plugin, admission, controller and router share: labels, annotations, names, keys
// and the environment of an injected container. It imports nothing of Kubernetes, so that the router can share it too.
package sandbox

// Prefix begins every label, annotation and condition of the product.
const Prefix = "kubectl-sandbox.dev/"

// Field managers.
const (
	// FieldManager is the field manager of everything the plugin writes. It does not begin with "kubectl": Flux takes over
	// what such managers own, and then removes it.
	FieldManager = "sandbox"
	// FormerFieldManager is an earlier FieldManager, which old objects still have.
	FormerFieldManager = "kubectl-sandbox"
)

// Labels.
const (
	// LabelSandbox names the sandbox of an object. On the ConfigMap, forks, their pods and check pods.
	LabelSandbox = Prefix + "sandbox"
	// LabelRole is the role of an object: one of the Role values. Admission selects pods by it.
	LabelRole = Prefix + "role"
	// LabelWorkload names a baseline as formatted by WorkloadLabel. On a baseline's pod template, on forks and their pods.
	LabelWorkload = Prefix + "workload"
	// LabelKey is the routing key. On the ConfigMap, so that the sandbox with a key can be found by a selector.
	LabelKey = Prefix + "key"
	// LabelRun names the experiment of an object: its ConfigMap, its Jobs and their pods, and the sandboxes it created.
	LabelRun = Prefix + "run"
	// LabelCheck names the check that a Job of an experiment runs. On the Job and its pods.
	LabelCheck = Prefix + "check"
	// LabelEntry, set to EntryAllowed on a Namespace, lets the gateway enter sandboxes of other namespaces through its
	// Services.
	LabelEntry = Prefix + "entry"
)

// Values of LabelRole.
const (
	RoleSandbox  = "sandbox"  // the ConfigMap that owns everything else in a sandbox
	RoleFork     = "fork"     // a fork's Deployment, ReplicaSets and pods
	RoleBaseline = "baseline" // a baseline's pods: they get a router
	RoleCheck    = "check"    // a test Job's pods: they get a key-stamping router
	RoleRun      = "run"      // the ConfigMap of an experiment: it owns its Jobs, and holds the results
	RoleRoute    = "route"    // objects `route` adds beside a baseline (NetworkPolicies), removed by `unroute`
	RoleShare    = "share"    // a ConfigMap whose token lets people enter a sandbox through the gateway
	RoleService  = "service"  // a user's Service whose targetPorts `route` switched to names: the guard watches it
)

// EntryAllowed is the value of LabelEntry.
const EntryAllowed = "allowed"

// Annotations.
const (
	// AnnotationGateway is the domain of the gateway's hosts. On the MutatingWebhookConfiguration; absent without a
	// gateway.
	AnnotationGateway = Prefix + "gateway"
	// AnnotationProbeImage is the image of the built-in checks, sandbox-probe. On the MutatingWebhookConfiguration.
	AnnotationProbeImage = Prefix + "probe-image"
	// AnnotationPluginImage is the image of the plugin, for experiments that run in the cluster. On the
	// MutatingWebhookConfiguration.
	AnnotationPluginImage = Prefix + "plugin-image"
	// AnnotationMaxRate is how many requests a second load checks may send. On the MutatingWebhookConfiguration.
	AnnotationMaxRate = Prefix + "max-rate"
	// AnnotationPatch holds the difference of a fork from its baseline's pod template, an RFC 6902 patch. On the fork's
	// Deployment.
	AnnotationPatch = Prefix + "patch"
	// AnnotationKey holds the sandbox's routing key. On the fork's Deployment and its pod template.
	AnnotationKey = Prefix + "key"
	// AnnotationWhenUnready is where keyed requests go while no pod of the fork is ready: WhenUnreadyError (default) or
	// WhenUnreadyBaseline. On the fork's Deployment and its pod template.
	AnnotationWhenUnready = Prefix + "when-unready"
	// AnnotationTemplate is where a custom kind has its pod template: names of fields, separated by dots. Absent:
	// spec.template. On the fork's Deployment, and on a baseline, set by `route --template-path` or by its author.
	AnnotationTemplate = Prefix + "template"
	// AnnotationAPIVersion is the apiVersion of a fork's baseline if its kind is not one of Kubernetes' own. With
	// LabelWorkload it identifies what to read. On the fork's Deployment.
	AnnotationAPIVersion = Prefix + "api-version"
	// AnnotationWorkload is a fork's baseline as "KIND.NAME", if that is too long for LabelWorkload. On the fork's
	// Deployment.
	AnnotationWorkload = Prefix + "workload"
	// AnnotationDropLabels names the labels that a fork must not keep, even if something selects by them: "NAME,...". On
	// the fork's Deployment.
	AnnotationDropLabels = Prefix + "drop-labels"
	// AnnotationEnvFrom names the variables that containers of a fork have from envFrom and that admission would set, as
	// formatted by FormatEnvFrom. Admission cannot see them, and must not override them. On the fork's pod template.
	AnnotationEnvFrom = Prefix + "env-from"
	// AnnotationBaseline is a short hash of what a fork inherits from its baseline's pod template. If the baseline has
	// another one now, the fork is behind. On the fork's Deployment.
	AnnotationBaseline = Prefix + "baseline"
	// AnnotationFollow, set to FollowOn on a fork's Deployment, makes the controller rebase the fork whenever its baseline
	// changes.
	AnnotationFollow = Prefix + "follow"
	// AnnotationFollowed is the result of the last such rebase: see FormatFollowed.
	AnnotationFollowed = Prefix + "followed"
	// AnnotationPorts lists the named TCP ports a router captures, as formatted by FormatPorts. On a baseline's pod
	// template.
	AnnotationPorts = Prefix + "ports"
	// AnnotationOutgoing, set to OutgoingOff on a pod template, keeps HTTP_PROXY out of a fork's or check's containers.
	AnnotationOutgoing = Prefix + "outgoing"
	// AnnotationRouted is the intent that a workload is routed. It records what `route` changed, so that admission keeps
	// it and `unroute` restores the rest exactly: see RouteRecord. On a baseline workload's own metadata.
	AnnotationRouted = Prefix + "routed"
	// AnnotationTargetPorts records, as JSON on a Service, the numeric targetPorts that `route` replaced by names: see
	// FormatTargetPorts. Admission keeps the recorded names, whoever writes the Service. `{}` releases the Service.
	AnnotationTargetPorts = Prefix + "target-ports"
	// AnnotationWorkloads lists, on a Service with AnnotationTargetPorts, the routed workloads that it was switched for,
	// as formatted by FormatWorkloads. The controller releases the Service when none of them is left.
	AnnotationWorkloads = Prefix + "workloads"
	// AnnotationRestored records, on a Service, that the guard restored numeric targetPorts, when, and why: see
	// FormatRestored.
	AnnotationRestored = Prefix + "put-back"
	// AnnotationPolicies names, on a fork's NetworkPolicy, the user's policies that it was created for: "NAME,...".
	AnnotationPolicies = Prefix + "policies"
	// AnnotationServices lists the Services that a check reaches through its router, as formatted by FormatServices; the
	// first is the one under test. On a check's pods.
	AnnotationServices = Prefix + "services"
	// AnnotationKind, AnnotationRequired, AnnotationTimeout and AnnotationThresholds are a suite's settings of a check. On
	// its Job.
	AnnotationKind       = Prefix + "kind"
	AnnotationRequired   = Prefix + "required"
	AnnotationTimeout    = Prefix + "timeout"
	AnnotationThresholds = Prefix + "thresholds"
	// AnnotationRestartedAt rolls out a fork whose spec is otherwise unchanged (RFC 3339). On the fork's pod template.
	AnnotationRestartedAt = Prefix + "restarted-at"
	// AnnotationRetriedAt is updated by the controller on a fork's Deployment, to retry pod creation at once after
	// admission was unavailable (RFC 3339).
	AnnotationRetriedAt = Prefix + "retried-at"
	// AnnotationFlush, on the ConfigMap of a sandbox or an experiment, requests that the controller collects the routers'
	// counts now. The controller responds by setting AnnotationFlushed to the same value.
	AnnotationFlush   = Prefix + "flush"
	AnnotationFlushed = Prefix + "flushed"
	// AnnotationFlushMissing names the routers that did not respond to the last flush in time, or what else is missing
	// from the counts; absent if they are complete.
	AnnotationFlushMissing = Prefix + "flush-missing"
	// AnnotationInjected is what admission did to a pod: the version of the injection, or the reason it declined.
	AnnotationInjected = Prefix + "injected"
)

// Values of AnnotationWhenUnready, AnnotationOutgoing and AnnotationFollow.
const (
	WhenUnreadyError    = "error"
	WhenUnreadyBaseline = "baseline"
	OutgoingOff         = "off"
	FollowOn            = "true"
)

// ConditionRouted is the readiness gate of a fork's pods. True means that the router of every ready baseline pod
// acknowledged a table in which this pod serves its key.
const ConditionRouted = Prefix + "routed"

// Keys of a sandbox ConfigMap's data.
const (
	DataKey       = "key"        // the routing key
	DataCreatedBy = "created-by" // name of the user who created it, as the API server knows it
	DataExpires   = "expires"    // RFC 3339; absent: never
	DataCounts    = "counts"     // JSON, see route.Totals: requests counted by the routers, per workload
	DataHealth    = "health"     // JSON, see health.Published: the state of each fork
	DataEnded     = "ended"      // JSON, names of pods whose routers ended after all their counts were written
	DataCounted   = "counted"    // the controller's own: how much of each router's count is in DataCounts, or in DataObserved
)

// Keys of the data of an experiment's ConfigMap, besides DataExpires and DataCounted.
const (
	DataObserve  = "observe"  // keys whose requests the routers of the namespace observe, as formatted by FormatObserve
	DataObserved = "observed" // JSON, see route.Observed: those that passed workloads without a fork for the key
)

// RouterContainer is the name of the injected native sidecar. A container with that name means that the pod is
// injected.
const RouterContainer = "sandbox-router"

// Audience is the audience of the token with which routers authenticate to the route stream.
const Audience = "kubectl-sandbox.dev"

// Environment of app containers in forks and checks.
const (
	EnvName    = "SANDBOX_NAME"
	EnvKey     = "SANDBOX_KEY"
	EnvBaggage = "SANDBOX_BAGGAGE" // a ready-made W3C baggage value: "sandbox-key=KEY"
	EnvURL     = "SANDBOX_URL"     // checks only: where the router accepts requests for the Service under test; see URLEnv
)

// Environment of the router's container: set by inject, read by the router.
const (
	EnvRouterPorts       = "SANDBOX_ROUTER_PORTS"        // NAME=LISTEN:APP,...: captured ports; empty in forks and checks
	EnvRouterOutgoing    = "SANDBOX_ROUTER_OUTGOING"     // loopback address of the stamping HTTP proxy; empty: none
	EnvRouterForwards    = "SANDBOX_ROUTER_FORWARDS"     // LISTEN=HOST:PORT,...: loopback ports that stand in for Services; checks only
	EnvRouterReport      = "SANDBOX_ROUTER_REPORT"       // file to which the router writes a route.Sent when it ends; empty: none
	EnvRouterAdmin       = "SANDBOX_ROUTER_ADMIN"        // address for /metrics, /ready and /healthz, e.g. ":15370"
	EnvRouterControl     = "SANDBOX_ROUTER_CONTROL"      // HOST:PORT,... of the route stream, tried in turn
	EnvRouterControlName = "SANDBOX_ROUTER_CONTROL_NAME" // TLS server name of the route stream
	EnvRouterCA          = "SANDBOX_ROUTER_CA"           // PEM bundle that verifies the route stream's certificate
	EnvRouterToken       = "SANDBOX_ROUTER_TOKEN"        // path of the projected token, read for each connection
	EnvRouterState       = "SANDBOX_ROUTER_STATE"        // directory (emptyDir) for the last table
	EnvRouterHeader      = "SANDBOX_ROUTER_HEADER"       // key header's name
	EnvRouterMember      = "SANDBOX_ROUTER_MEMBER"       // key's member name in baggage and tracestate
	EnvRouterStaleAfter  = "SANDBOX_ROUTER_STALE_AFTER"  // Go duration: a table older than this answers its keys with 503
	EnvRouterFirstWait   = "SANDBOX_ROUTER_FIRST_WAIT"   // Go duration: how long /ready waits for the first table
	EnvRouterPodName     = "SANDBOX_ROUTER_POD_NAME"     // downward API
	EnvRouterPodIP       = "SANDBOX_ROUTER_POD_IP"       // downward API
)

// Defaults of the names that carry a key; chart values change them.
const (
	DefaultHeader = "x-sandbox-key"
	DefaultMember = "sandbox-key"
)

// Headers of a response to a keyed request.
const (
	HeaderServedBy = "x-sandbox-served-by" // pod that responded
	HeaderError    = "x-sandbox-error"     // why the router itself responded with 503
	HeaderEscaped  = "x-sandbox-escaped"   // destination of a redirect that leaves the previews
)
