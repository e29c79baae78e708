package sandbox

// The right to set or change marks is a verb on a resource that no API serves, so that RBAC can grant it in a
// namespace. The chart's ValidatingAdmissionPolicies require it.
const (
	RightGroup    = "kubectl-sandbox.dev"
	RightResource = "sandboxes"
	VerbFork      = "fork"  // marks of sandboxes, their shares, and experiments
	VerbRoute     = "route" // marks of baselines, and of all roles that RolesOf has for no verb
)

// RolesOf returns the roles whose marks, and whose ConfigMaps' data, require the verb. Each role belongs to one verb.
func RolesOf(verb string) []string {
	switch verb {
	case VerbFork:
		return []string{RoleSandbox, RoleFork, RoleCheck, RoleRun, RoleShare}
	case VerbRoute:
		return []string{RoleBaseline, RoleService, RoleRoute}
	}
	return nil
}

// Types of the causes (metav1.StatusCause) of a refused sandbox.
const (
	CauseKeyInUse  = "SandboxKeyInUse"
	CauseTooMany   = "TooManySandboxes"
	CauseMalformed = "SandboxMalformed"
)

// AnnotationGuarded is on the MutatingWebhookConfiguration if those policies are in force, so that the plugin checks
// the right before it changes anything.
const AnnotationGuarded = Prefix + "guarded"

// AnnotationDefaultTTL is how long a sandbox lives after the last fork without --ttl, a Go duration; "0" means forever.
// On the MutatingWebhookConfiguration, from a chart value.
const AnnotationDefaultTTL = Prefix + "default-ttl"
