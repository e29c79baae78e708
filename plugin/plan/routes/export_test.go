package routes

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
)

// What the simulation of a namespace uses of the package. It is a package of its own, since it also plans forks.
var (
	AppView          = appView
	ContainersNaming = containersNaming
	Decode           = decode
	PoliciesResource = policiesResource
	Router           = router
	ServicesResource = servicesResource
	TemplatePod      = templatePod
)

// PodsOf returns the pods of w that are or will be endpoints.
func (v *View) PodsOf(w *plan.Workload) []*corev1.Pod { return v.podsOf(w) }
