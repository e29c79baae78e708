package inject

// A Reason is why a pod was left unchanged.
type Reason struct {
	Code   Code
	Detail string // one clause for people, about "it", the pod
}

// String returns "CODE: detail".
func (r *Reason) String() string { return string(r.Code) + ": " + r.Detail }

// A Code identifies a kind of Reason. Codes are stable: metrics and scripts use them.
type Code string

// Codes of reasons.
const (
	HostNetwork    Code = "host-network"    // the pod uses its node's network
	Windows        Code = "windows"         // the pod runs on Windows
	StaticPod      Code = "static-pod"      // the pod mirrors a file on its node
	RoleUnknown    Code = "role-unknown"    // the role label has no value that admission knows
	NameTaken      Code = "name-taken"      // a container or volume has the router's name
	PortsMissing   Code = "ports-missing"   // a baseline without the ports annotation
	PortsMalformed Code = "ports-malformed" // the ports annotation can't be read
	PortUnknown    Code = "port-unknown"    // no container has a TCP port of the name
	PortShared     Code = "port-shared"     // several containers have a TCP port of the name
	PortMoved      Code = "port-moved"      // the port's number is not the one in the annotation
	PortsExhausted Code = "ports-exhausted" // no number is left for the router to listen on
	SandboxUnknown Code = "sandbox-unknown" // a fork or check without its sandbox's name
	KeyMalformed   Code = "key-malformed"   // a fork or check without a valid routing key

	EnvFromMalformed  Code = "env-from-malformed" // the annotation of variables by envFrom can't be read
	ServicesMalformed Code = "services-malformed" // the services annotation of a check can't be read
)
