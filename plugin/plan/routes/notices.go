package routes

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
)

// ProtocolNotices warns of targets that can't receive keys.
func ProtocolNotices(v *View) []string {
	var out []string
	for _, t := range v.Targets {
		template, err := t.PodTemplate()
		if err != nil {
			continue // planning says so
		}
		if why := plan.UnroutableProtocol(v.Services, templatePod(template), template.Labels); why != "" {
			out = append(out, fmt.Sprintf("%s: %s, so that its forks get no request", t, why))
		}
	}
	return out
}

// Notices returns what the user should know before routing the targets: which requests routers will not see, and
// which tools will report the change as a difference.
func Notices(v *View) ([]string, error) {
	a, err := analyse(v)
	if err != nil {
		return nil, err
	}
	notices := a.notices
	kept := func(object string, labels, annotations map[string]string) {
		if ofArgo(labels, annotations) {
			notices = append(notices, object+" is kept by Argo CD, which reports what route adds as a difference unless the Application ignores it: see \"Deploys after route\" in charts/sandbox/README.md")
		}
	}
	for _, t := range a.targets {
		kept(t.String(), t.Object.GetLabels(), t.Object.GetAnnotations())
		if strategy, _, _ := unstructured.NestedString(t.Object.Object, "spec", "strategy", "type"); strategy == string(appsv1.RecreateDeploymentStrategyType) {
			notices = append(notices, fmt.Sprintf("%s has the strategy Recreate: while it rolls out, it serves nobody", t.Workload))
		}
		for _, c := range plan.ServingContainers(t.pod) {
			for _, p := range c.Ports {
				if p.HostPort != 0 && p.Protocol == corev1.ProtocolTCP {
					notices = append(notices, fmt.Sprintf("%s: what comes to port %d of its nodes (hostPort) goes to the app itself, never to a fork", t.Workload, p.HostPort))
				}
			}
		}
	}
	for _, s := range a.services {
		if _, changes := s.writeSwitch(); changes {
			kept("service/"+s.Name, s.Labels, s.Annotations)
		}
	}
	return append(notices, a.policyNotices()...), nil
}
