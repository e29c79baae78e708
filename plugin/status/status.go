// Package status describes what kubectl sandbox prints for programs: the objects of -o json, yaml, jsonpath and go-template.
//
// The objects are printed, and never stored: no API server knows these kinds, and there is no CustomResourceDefinition. They are
// versioned all the same. Within APIVersion a field keeps its name, type and meaning, and a reason code is not reused for something
// else. New fields, conditions and codes may come; a program ignores those that it does not know.
package status

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// APIVersion is the group and version of all kinds in this package.
const APIVersion = "kubectl-sandbox.dev/v1"

// Kinds of this package.
const (
	KindSandbox     = "SandboxStatus"
	KindSandboxList = "SandboxStatusList"
	KindRoute       = "RouteStatus"
	KindRouteList   = "RouteStatusList"
	KindError       = "Error"
)

// Types of conditions.
const (
	// ConditionRouted says whether requests with the key reach the forks (of a sandbox, of one fork), or whether a workload's pods
	// are ready to route requests to forks.
	ConditionRouted = "Routed"
	// ConditionUpToDate says whether a fork is based on the current state of its baseline.
	ConditionUpToDate = "UpToDate"
)

// Reasons of ConditionUpToDate.
const (
	ReasonUpToDate      = "UpToDate"
	ReasonBehind        = "Behind"       // the baseline has changed since
	ReasonConflict      = "Conflict"     // the controller can't rebase the fork, which follows its baseline
	ReasonBaselineGone  = "BaselineGone" // there is no baseline any more
	ReasonNotRecorded   = "NotRecorded"  // an older version made the fork, and did not record what of
	ReasonBaselineError = "Unreadable"   // the baseline may not be read
)

// ReasonNoForks is the reason of ConditionRouted of a sandbox in which nothing is forked.
const ReasonNoForks = "NoForks"

// SandboxStatus is a sandbox as it is at one moment: what `kubectl sandbox status NAME` prints.
type SandboxStatus struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        Metadata `json:"metadata"`

	// Key is the routing key: requests that carry it reach the forks.
	Key string `json:"key"`
	// State sums up the conditions of the forks in one word, as the column STATE shows it.
	State string `json:"state"`
	// CreatedBy is who made the sandbox, as the API server knows them.
	CreatedBy string `json:"createdBy,omitempty"`
	// Expires is when the sandbox is deleted; absent: never.
	Expires *metav1.Time `json:"expires,omitempty"`
	// URLs are the previews that the gateway serves, where there is one. `list` does not read them.
	URLs []string `json:"urls,omitempty"`
	// Conditions has ConditionRouted, which is True when it is True of all forks.
	Conditions []Condition `json:"conditions"`
	// Requests sums the requests of the forks.
	Requests Requests `json:"requests"`
	// Forks are in the order of their names.
	Forks []ForkStatus `json:"forks"`
}

// SandboxStatusList is what `kubectl sandbox list` prints.
type SandboxStatusList struct {
	metav1.TypeMeta `json:",inline"`
	Items           []SandboxStatus `json:"items"`
}

// Metadata names an object. The name of a SandboxStatus is that of the sandbox, without the prefix that its ConfigMap's name has.
type Metadata struct {
	Name              string       `json:"name"`
	Namespace         string       `json:"namespace"`
	CreationTimestamp *metav1.Time `json:"creationTimestamp,omitempty"`
	// UID is that of the object in the cluster: a sandbox's ConfigMap, a workload.
	UID string `json:"uid,omitempty"`
	// Labels are those of the object in the cluster.
	Labels map[string]string `json:"labels,omitempty"`
}

// A Condition is one thing that holds or does not, with the reason.
type Condition struct {
	// Type is one of the Condition constants.
	Type string `json:"type"`
	// Status is True, False or Unknown. Unknown does not mean False: an object that decides it could not be read.
	Status metav1.ConditionStatus `json:"status"`
	// Reason is a stable code in CamelCase.
	Reason string `json:"reason"`
	// Message is a sentence for people; its wording may change.
	Message string `json:"message,omitempty"`
	// Command fixes it, or shows more; quoted for a POSIX shell.
	Command string `json:"command,omitempty"`
}

// ForkStatus is one fork of a sandbox.
type ForkStatus struct {
	// Name is that of the fork's Deployment.
	Name string `json:"name"`
	// Workload is the baseline, as one types it: deployment/api.
	Workload string `json:"workload"`
	// State is ConditionRouted in one word.
	State string `json:"state"`
	// CreationTimestamp is when the fork was made.
	CreationTimestamp *metav1.Time `json:"creationTimestamp,omitempty"`
	// Replicas is the desired number of pods, ReadyReplicas the number of ready ones.
	Replicas      int32 `json:"replicas"`
	ReadyReplicas int32 `json:"readyReplicas"`
	// Conditions has ConditionRouted and ConditionUpToDate.
	Conditions []Condition `json:"conditions"`
	// URLs are where requests with the key enter from inside the cluster: one for each port of each Service of the baseline.
	URLs []string `json:"urls,omitempty"`
	// Images are what the containers of a pod of the newest template run. `list` does not read them.
	Images []Image `json:"images,omitempty"`
	// Requests are what the routers of the baseline counted for the key.
	Requests Requests `json:"requests"`
}

// An Image is what a container runs.
type Image struct {
	Container string `json:"container"`
	Image     string `json:"image"`
	// Digest is the manifest's, as sha256:...; absent if the container runtime does not report it.
	Digest string `json:"digest,omitempty"`
}

// Requests counts requests that carried a key, by their outcome.
type Requests struct {
	// Fork were served by the fork.
	Fork uint64 `json:"fork"`
	// Baseline were sent to the baseline because no pod of the fork was ready (--when-unready=baseline).
	Baseline uint64 `json:"baseline"`
	// Refused were answered with 503 by the router because no pod of the fork was ready.
	Refused uint64 `json:"refused"`
	// Unfinished counts requests that broke off before the answer was complete.
	Unfinished uint64 `json:"unfinished"`
	// Current means that the routers reported just now. Otherwise the counts are some seconds old.
	Current bool `json:"current"`
	// Missing names the routers that did not report, and whose latest counts are missing.
	Missing string `json:"missing,omitempty"`
}

// RouteStatus is a workload with routers: what `kubectl sandbox route` lists.
type RouteStatus struct {
	metav1.TypeMeta `json:",inline"`
	// Metadata names the workload.
	Metadata Metadata `json:"metadata"`
	// Workload is the workload as one types it: deployment/api.
	Workload string `json:"workload"`
	// State is ConditionRouted in one word.
	State string `json:"state"`
	// Pods are the workload's pods, Routers those that have a router.
	Pods    int `json:"pods"`
	Routers int `json:"routers"`
	// Ports are the ports that routers capture, as NAME=NUMBER.
	Ports []string `json:"ports,omitempty"`
	// Services lead to the workload.
	Services []string `json:"services,omitempty"`
	// Conditions has ConditionRouted.
	Conditions []Condition `json:"conditions"`
	// Routes are one for each fork, in the order of the sandboxes' names.
	Routes []Route `json:"routes"`
}

// RouteStatusList is what `kubectl sandbox route` prints.
type RouteStatusList struct {
	metav1.TypeMeta `json:",inline"`
	Items           []RouteStatus `json:"items"`
}

// A Route sends requests that carry Key to a fork.
type Route struct {
	Sandbox           string       `json:"sandbox"`
	Key               string       `json:"key"`
	Fork              string       `json:"fork"` // the Deployment
	State             string       `json:"state"`
	CreationTimestamp *metav1.Time `json:"creationTimestamp,omitempty"`
	Replicas          int32        `json:"replicas"`
	ReadyReplicas     int32        `json:"readyReplicas"`
	Requests          Requests     `json:"requests"`
}

// An Error is what a command that fails prints on standard error with -o json.
type Error struct {
	metav1.TypeMeta `json:",inline"`
	// Code is a stable reason in CamelCase: one of the Code constants, the reason of a Condition, or one of an API server's (such as
	// NotFound, Forbidden, Conflict, AlreadyExists).
	Code string `json:"code"`
	// ExitStatus is that of the program.
	ExitStatus int `json:"exitStatus"`
	// Object is what the message is about, as kubectl prints it: deployment.apps/api.
	Object string `json:"object,omitempty"`
	// Message is a sentence for people; its wording may change.
	Message string `json:"message"`
	// Details are the words of others that explain it, such as the end of a log.
	Details []string `json:"details,omitempty"`
	// Advice says what Command does.
	Advice string `json:"advice,omitempty"`
	// Command fixes it, or shows more; quoted for a POSIX shell.
	Command string `json:"command,omitempty"`
	// Notices are the lines that the command wrote to standard error before, such as warnings.
	Notices []string `json:"notices,omitempty"`
}

// Codes of an Error beside those of conditions and API servers.
const (
	CodeUsage        = "Usage"        // the command line is wrong; nothing was read or changed
	CodeRefused      = "Refused"      // what was requested is not possible here; the message says why
	CodeFailed       = "Failed"       // unexpected
	CodeTimedOut     = "TimedOut"     // not within --timeout; what was started may still complete
	CodeInterrupted  = "Interrupted"  // by a signal
	CodeNoCluster    = "NoCluster"    // no cluster is configured, or its API server does not answer
	CodeUnauthorized = "Unauthorized" // the API server does not accept the credentials
	CodeNotRouted    = "NotRouted"    // workloads to fork have no routers
	CodeNoWebhook    = "NoWebhook"    // the webhook is not installed in this cluster
)
