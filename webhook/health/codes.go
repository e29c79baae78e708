package health

import "strconv"

// A Code identifies a kind of Cause. Codes are stable: conditions, JSON output, metrics and scripts use them.
type Code string

// Codes of pods: see Pod.
const (
	PodStarting         Code = "PodStarting"         // its containers are being created
	PodUnschedulable    Code = "PodUnschedulable"    // no node fits it
	PodSchedulingGated  Code = "PodSchedulingGated"  // a controller delays its scheduling
	PodEvicted          Code = "PodEvicted"          // its node or the eviction API ended it
	PodPreempted        Code = "PodPreempted"        // it was removed in favour of another pod
	PodRejected         Code = "PodRejected"         // its node refused it
	PodLost             Code = "PodLost"             // its node is gone or does not respond
	PodDeadlineExceeded Code = "PodDeadlineExceeded" // its own activeDeadlineSeconds passed
	PodFailed           Code = "PodFailed"           // it failed, for none of the reasons above
	PodTerminating      Code = "PodTerminating"      // it is being deleted
	PodNotReady         Code = "PodNotReady"         // its containers are ready and it is not; the reason is not known

	ReadinessGateFalse Code = "ReadinessGateFalse" // a readiness gate of another controller is not True
)

// Codes of containers: see Containers.
const (
	ImagePullFailed      Code = "ImagePullFailed"      // the registry did not provide the image
	ImageNameInvalid     Code = "ImageNameInvalid"     // the image's name is invalid
	SecretNotFound       Code = "SecretNotFound"       // a Secret, or a key of it, is missing
	ConfigMapNotFound    Code = "ConfigMapNotFound"    // a ConfigMap, or a key of it, is missing
	ContainerConfigError Code = "ContainerConfigError" // the kubelet cannot create the container's configuration
	ContainerStartFailed Code = "ContainerStartFailed" // the runtime cannot create or start it
	ContainerWaiting     Code = "ContainerWaiting"     // it waits for a reason that Kubernetes does not document
	ContainerCrashed     Code = "ContainerCrashed"     // it ended with an exit code other than 0
	ContainerExited      Code = "ContainerExited"      // it ended with exit code 0 and should run on
	OutOfMemory          Code = "OutOfMemory"          // the kernel killed it at its own or its node's memory limit
	ContainerNotStarted  Code = "ContainerNotStarted"  // its startup probe has not passed
	ContainerNotReady    Code = "ContainerNotReady"    // its readiness probe has not passed
	ContainerJustStarted Code = "ContainerJustStarted" // it has no readiness probe, and has run for a moment only
)

// Codes of forks and of what leads to them: see Fork.
const (
	Routed           Code = "Routed"           // requests with the key reach the fork
	Running          Code = "Running"          // it runs, and has no ports that requests could be routed to
	ForkDeleting     Code = "ForkDeleting"     // its Deployment is being deleted
	ForkNotObserved  Code = "ForkNotObserved"  // the Deployment controller has not processed its newest template
	ScaledToZero     Code = "ScaledToZero"     // it has no pods because its replicas are 0
	PodsNotCreated   Code = "PodsNotCreated"   // the Deployment controller has not created its pods yet
	QuotaExceeded    Code = "QuotaExceeded"    // a quota leaves no room for its pods
	PodSecurity      Code = "PodSecurity"      // Pod Security admission refuses its pods
	PodForbidden     Code = "PodForbidden"     // another admission plugin or webhook refuses its pods
	WebhookAway      Code = "WebhookAway"      // kubectl-sandbox's webhook does not respond
	NotInjected      Code = "NotInjected"      // its pods were created without the webhook
	OlderPodsRemain  Code = "OlderPodsRemain"  // pods of its older template have not ended
	ProgressDeadline Code = "ProgressDeadline" // its rollout made no progress for its whole deadline

	KeyTaken   Code = "KeyTaken"   // an older fork of the baseline has the key
	KeyInvalid Code = "KeyInvalid" // the key annotation is not a key

	OlderRevision          Code = "OlderRevision"          // routers send the key to pods of a newer revision
	PortNotListening       Code = "PortNotListening"       // no router could connect to the fork's port
	PortNotTried           Code = "PortNotTried"           // no router has tried to connect to the fork's port yet
	RouterMissing          Code = "RouterMissing"          // baseline pods have no router
	RouterDeclined         Code = "RouterDeclined"         // admission declined to add a router to baseline pods
	RouterNotConnected     Code = "RouterNotConnected"     // routers have not connected to the control plane
	RouterNotAcknowledged  Code = "RouterNotAcknowledged"  // routers have not acknowledged the route
	RouterStale            Code = "RouterStale"            // routers lost the control plane, and their tables are too old
	RoutingUnknown         Code = "RoutingUnknown"         // the control plane has not published what it knows
	BaselineGone           Code = "BaselineGone"           // the baseline does not exist
	BaselineNotRouted      Code = "BaselineNotRouted"      // the baseline's template lacks the marks of `route`
	NoBaselinePod          Code = "NoBaselinePod"          // the baseline has no ready pod
	BaselineBehind         Code = "BaselineBehind"         // the baseline changed since the fork was created or rebased
	ServiceBypassesRouters Code = "ServiceBypassesRouters" // a Service leads to the app's port instead of the router's
	ServiceWithoutPods     Code = "ServiceWithoutPods"     // a Service of the baseline selects none of its pods
	ServiceShared          Code = "ServiceShared"          // a Service also leads to pods of another workload
	ProtocolUnroutable     Code = "ProtocolUnroutable"     // the port has TLS or no HTTP: no key can be read
)

func count(n int) string { return strconv.Itoa(n) }
