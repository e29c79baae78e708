// Package sandbox is the contract that plugin, admission, controller and router share: labels, annotations, names, keys and
// the environment of an injected container. It imports nothing of Kubernetes, so that the router can share it too.
package sandbox

// Prefix begins every label, annotation and condition the product owns.
const Prefix = "kubectl-sandbox.dev/"

// Field managers.
const (
	// FieldManager is the field manager of everything the plugin writes. It does not begin with "kubectl": Flux takes over what
	// such managers own, and then removes it.
	FieldManager = "sandbox"
	// FormerFieldManager is what FieldManager was before: objects from that time still carry it.
	FormerFieldManager = "kubectl-sandbox"
)

// Labels.
const (
	// LabelSandbox names the sandbox an object belongs to. On the ConfigMap, forks, their pods and check pods.
	LabelSandbox = Prefix + "sandbox"
	// LabelRole says what an object is: one of the Role values. Admission selects pods by it.
	LabelRole = Prefix + "role"
	// LabelWorkload names a baseline as WorkloadLabel writes it. On a baseline's pod template, on forks and their pods.
	LabelWorkload = Prefix + "workload"
	// LabelKey is the routing key. On the ConfigMap, so that who wants to use a key finds the sandbox that has it without reading all.
	LabelKey = Prefix + "key"
	// LabelRun names the experiment an object belongs to: its ConfigMap, its Jobs and their pods, and the sandboxes it made.
	LabelRun = Prefix + "run"
	// LabelCheck names the check that a Job of an experiment runs. On the Job and its pods.
	LabelCheck = Prefix + "check"
	// LabelEntry, set to EntryAllowed on a Namespace, lets the gateway enter sandboxes of other namespaces by its Services.
	LabelEntry = Prefix + "entry"
)

// Values of LabelRole.
const (
	RoleSandbox  = "sandbox"  // the ConfigMap that owns all else in a sandbox
	RoleFork     = "fork"     // a fork's Deployment, ReplicaSets and pods
	RoleBaseline = "baseline" // a baseline's pods: they get a router
	RoleCheck    = "check"    // a test Job's pods: they get a key-stamping router
	RoleRun      = "run"      // the ConfigMap of an experiment: it owns its Jobs, and keeps what came of them
	RoleRoute    = "route"    // objects `route` adds beside a baseline (NetworkPolicies), removed by `unroute`
	RoleShare    = "share"    // a ConfigMap that lets whoever has its token enter a sandbox by the gateway
	RoleService  = "service"  // a Service of the user's whose targetPorts `route` switched to names: the guard watches it
)

// EntryAllowed is the value of LabelEntry.
const EntryAllowed = "allowed"

// Annotations.
const (
	// AnnotationGateway is the domain of the gateway's hosts. On the MutatingWebhookConfiguration; absent where there is no gateway.
	AnnotationGateway = Prefix + "gateway"
	// AnnotationProbeImage is the image of the built-in checks, sandbox-probe. On the MutatingWebhookConfiguration.
	AnnotationProbeImage = Prefix + "probe-image"
	// AnnotationPluginImage is the image of the plugin itself, for experiments that nobody waits for. On the
	// MutatingWebhookConfiguration.
	AnnotationPluginImage = Prefix + "plugin-image"
	// AnnotationMaxRate is how many requests a second load checks may send. On the MutatingWebhookConfiguration.
	AnnotationMaxRate = Prefix + "max-rate"
	// AnnotationPatch holds a fork's difference from its baseline's pod template, an RFC 6902 patch. On the fork's Deployment.
	AnnotationPatch = Prefix + "patch"
	// AnnotationKey holds the sandbox's routing key. On the fork's Deployment and its pod template.
	AnnotationKey = Prefix + "key"
	// AnnotationWhenUnready says where keyed requests go while no pod of the fork is ready: WhenUnreadyError (default) or
	// WhenUnreadyBaseline. On the fork's Deployment and its pod template.
	AnnotationWhenUnready = Prefix + "when-unready"
	// AnnotationTemplate is where a custom kind keeps its pod template: names of fields with dots between. Absent: spec.template. On
	// the fork's Deployment, and on a baseline itself, by `route --template-path` or by whoever made it.
	AnnotationTemplate = Prefix + "template"
	// AnnotationAPIVersion is the apiVersion of a fork's baseline whose kind is not one of Kubernetes' own: with LabelWorkload it
	// says what to read. On the fork's Deployment.
	AnnotationAPIVersion = Prefix + "api-version"
	// AnnotationWorkload is a fork's baseline as "KIND.NAME", where LabelWorkload is too short for it. On the fork's Deployment.
	AnnotationWorkload = Prefix + "workload"
	// AnnotationDropLabels names the labels that a fork was asked not to keep, whatever reads them: "NAME,...". On the fork's
	// Deployment.
	AnnotationDropLabels = Prefix + "drop-labels"
	// AnnotationEnvFrom names the variables that the containers of a fork have by envFrom, out of those that admission sets, as
	// FormatEnvFrom writes them: admission, which can't see them, leaves these alone. On the fork's pod template.
	AnnotationEnvFrom = Prefix + "env-from"
	// AnnotationBaseline is a short hash of what a fork inherits of its baseline's pod template: another one now means that the
	// fork is behind. On the fork's Deployment.
	AnnotationBaseline = Prefix + "baseline"
	// AnnotationFollow, set to FollowOn on a fork's Deployment, has the controller lay the fork on its baseline whenever that
	// changes.
	AnnotationFollow = Prefix + "follow"
	// AnnotationFollowed is what the controller says of a fork that follows its baseline: see FormatFollowed.
	AnnotationFollowed = Prefix + "followed"
	// AnnotationPorts lists the named TCP ports a router captures, as FormatPorts writes them. On a baseline's pod template.
	AnnotationPorts = Prefix + "ports"
	// AnnotationOutgoing, set to OutgoingOff on a pod template, keeps HTTP_PROXY out of a fork's or check's containers.
	AnnotationOutgoing = Prefix + "outgoing"
	// AnnotationRouted is the intent that a workload be routed, and records what `route` changed, so that admission keeps it and
	// `unroute` restores the rest exactly: see RouteRecord. On a baseline workload's own metadata.
	AnnotationRouted = Prefix + "routed"
	// AnnotationTargetPorts records, as JSON on a Service, the numeric targetPorts that `route` replaced by names: see
	// FormatTargetPorts. Admission keeps the names of those it lists, whoever writes the Service. `{}` releases the Service.
	AnnotationTargetPorts = Prefix + "target-ports"
	// AnnotationWorkloads lists, on a Service with AnnotationTargetPorts, the routed workloads that it was switched for, as
	// FormatWorkloads writes them. The controller releases the Service when none of them is left.
	AnnotationWorkloads = Prefix + "workloads"
	// AnnotationRestored says, on a Service, that the guard put numeric targetPorts back, when, and why: see FormatPutBack.
	AnnotationRestored = Prefix + "put-back"
	// AnnotationPolicies names, on a fork's NetworkPolicy, those of the user's on whose account it is there: "NAME,...".
	AnnotationPolicies = Prefix + "policies"
	// AnnotationServices lists the Services that a check reaches by way of its router, as FormatServices writes them; the first is
	// what it tests. On a check's pods.
	AnnotationServices = Prefix + "services"
	// AnnotationKind, AnnotationRequired, AnnotationTimeout and AnnotationThresholds are what a suite says of a check. On its Job.
	AnnotationKind       = Prefix + "kind"
	AnnotationRequired   = Prefix + "required"
	AnnotationTimeout    = Prefix + "timeout"
	AnnotationThresholds = Prefix + "thresholds"
	// AnnotationRestartedAt rolls a fork whose spec is otherwise unchanged (RFC 3339). On the fork's pod template.
	AnnotationRestartedAt = Prefix + "restarted-at"
	// AnnotationRetriedAt is touched by the controller on a fork's Deployment to have pod creation tried again at once after
	// admission was away (RFC 3339).
	AnnotationRetriedAt = Prefix + "retried-at"
	// AnnotationFlush asks the controller, on the ConfigMap of a sandbox or an experiment, to collect the routers' counts now; it answers by setting
	// AnnotationFlushed to the same value.
	AnnotationFlush   = Prefix + "flush"
	AnnotationFlushed = Prefix + "flushed"
	// AnnotationFlushMissing names the routers that did not answer the last flush in time, or says what else is not in what it
	// wrote; absent when all is.
	AnnotationFlushMissing = Prefix + "flush-missing"
	// AnnotationInjected says what admission did to a pod: the version of the injection, or the reason it declined.
	AnnotationInjected = Prefix + "injected"
)

// Values of AnnotationWhenUnready, AnnotationOutgoing and AnnotationFollow.
const (
	WhenUnreadyError    = "error"
	WhenUnreadyBaseline = "baseline"
	OutgoingOff         = "off"
	FollowOn            = "true"
)

// ConditionRouted is the readiness gate of a fork's pods: True means that every ready baseline pod's router acknowledged a
// table in which this pod serves its key.
const ConditionRouted = Prefix + "routed"

// Keys of a sandbox ConfigMap's data.
const (
	DataKey       = "key"        // the routing key
	DataCreatedBy = "created-by" // user name of who made it, as the API server knows it
	DataExpires   = "expires"    // RFC 3339; absent: never
	DataCounts    = "counts"     // JSON, see route.Totals: requests seen by the routers, per workload
	DataHealth    = "health"     // JSON, see health.Published: what the controller says of each fork
	DataEnded     = "ended"      // JSON, names of pods whose routers ended after what they had counted was taken in whole
	DataCounted   = "counted"    // the controller's own: how much of each router's count is in DataCounts, or in DataObserved
)

// Keys of the data of an experiment's ConfigMap, besides DataExpires and DataCounted.
const (
	DataObserve  = "observe"  // keys whose requests the routers of the namespace observe, as FormatObserve writes them
	DataObserved = "observed" // JSON, see route.Observed: those that passed workloads which are not forked for the key
)

// RouterContainer is the name of the injected native sidecar; an existing container of that name means "already injected".
const RouterContainer = "sandbox-router"

// Audience is the audience of the token with which routers authenticate to the route stream.
const Audience = "kubectl-sandbox.dev"

// Environment of app containers in forks and checks.
const (
	EnvName    = "SANDBOX_NAME"
	EnvKey     = "SANDBOX_KEY"
	EnvBaggage = "SANDBOX_BAGGAGE" // a ready-made W3C baggage value: "sandbox-key=KEY"
	EnvURL     = "SANDBOX_URL"     // checks only: where the router takes requests for the Service under test; see URLEnv
)

// Environment of the router container: written by inject, read by the router.
const (
	EnvRouterPorts       = "SANDBOX_ROUTER_PORTS"        // NAME=LISTEN:APP,...: captured ports; empty in forks and checks
	EnvRouterOutgoing    = "SANDBOX_ROUTER_OUTGOING"     // loopback address of the stamping HTTP proxy; empty: none
	EnvRouterForwards    = "SANDBOX_ROUTER_FORWARDS"     // LISTEN=HOST:PORT,...: loopback ports that stand in for Services; checks only
	EnvRouterReport      = "SANDBOX_ROUTER_REPORT"       // file that the router writes a route.Sent to as it ends; empty: none
	EnvRouterAdmin       = "SANDBOX_ROUTER_ADMIN"        // address for /metrics, /ready and /healthz, e.g. ":15370"
	EnvRouterControl     = "SANDBOX_ROUTER_CONTROL"      // HOST:PORT,... of the route stream, tried in turn
	EnvRouterControlName = "SANDBOX_ROUTER_CONTROL_NAME" // TLS server name of the route stream
	EnvRouterCA          = "SANDBOX_ROUTER_CA"           // PEM bundle that the route stream's certificate must chain to
	EnvRouterToken       = "SANDBOX_ROUTER_TOKEN"        // path of the projected token, read anew at each connection
	EnvRouterState       = "SANDBOX_ROUTER_STATE"        // directory (emptyDir) for the last table
	EnvRouterHeader      = "SANDBOX_ROUTER_HEADER"       // key header's name
	EnvRouterMember      = "SANDBOX_ROUTER_MEMBER"       // key's member name in baggage and tracestate
	EnvRouterStaleAfter  = "SANDBOX_ROUTER_STALE_AFTER"  // Go duration: a table older than this answers its keys with 503
	EnvRouterFirstWait   = "SANDBOX_ROUTER_FIRST_WAIT"   // Go duration: how long /ready waits for the first table
	EnvRouterPodName     = "SANDBOX_ROUTER_POD_NAME"     // downward API
	EnvRouterPodIP       = "SANDBOX_ROUTER_POD_IP"       // downward API
)

// Defaults of the names that carry a key; a chart value changes them.
const (
	DefaultHeader = "x-sandbox-key"
	DefaultMember = "sandbox-key"
)

// Headers of an answer to a keyed request.
const (
	HeaderServedBy = "x-sandbox-served-by" // pod that answered
	HeaderError    = "x-sandbox-error"     // why the router itself answered 503
	HeaderEscaped  = "x-sandbox-escaped"   // where a redirect leads that leaves the previews
)
