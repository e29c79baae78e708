package sandbox

// The right to set or change marks is a verb on a resource that no API serves, so that RBAC can grant it in a namespace. The
// chart's ValidatingAdmissionPolicies ask for it.
const (
	RightGroup    = "kubectl-sandbox.dev"
	RightResource = "sandboxes"
	VerbFork      = "fork"  // marks of sandboxes, their shares, and experiments
	VerbRoute     = "route" // marks of baselines, and all that no role of RolesOf is with
)

// RolesOf returns the roles whose marks, and whose ConfigMaps' data, take the verb. Each role is in the list of one verb.
func RolesOf(verb string) []string {
	switch verb {
	case VerbFork:
		return []string{RoleSandbox, RoleFork, RoleCheck, RoleRun, RoleShare}
	case VerbRoute:
		return []string{RoleBaseline, RoleService, RoleRoute}
	}
	return nil
}

// Types of the causes (metav1.StatusCause) by which admission says why it refuses a sandbox.
const (
	CauseKeyInUse  = "SandboxKeyInUse"
	CauseTooMany   = "TooManySandboxes"
	CauseMalformed = "SandboxMalformed"
)

// AnnotationGuarded is on the MutatingWebhookConfiguration where those policies are in force, so that the plugin asks for the right
// before it changes anything.
const AnnotationGuarded = Prefix + "guarded"

// AnnotationDefaultTTL is how long a sandbox lives after the last fork without --ttl, a Go duration; "0" is for ever. On the
// MutatingWebhookConfiguration, by chart value.
const AnnotationDefaultTTL = Prefix + "default-ttl"
