package health

import (
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A Block is a fork of a sandbox that no request reaches, and the reason. Requests that enter the sandbox would get the
// fork's failure, or its baseline, from somewhere deep in the chain.
type Block struct {
	Fork string // its Deployment
	Cause
}

// Blocked returns the worst blocked fork of a sandbox, the first by name of several; nil if none is blocked. Forks that
// fall back to their baseline, and those without ports, block nothing.
func Blocked(forks []Facts) *Block {
	ordered := slices.SortedFunc(slices.Values(forks), func(a, b Facts) int { return strings.Compare(a.Deployment.Name, b.Deployment.Name) })
	var found *Block
	for _, f := range ordered {
		template := f.Deployment.Spec.Template.Annotations
		if f.Deployment.DeletionTimestamp != nil || template[sandbox.AnnotationPorts] == "" || template[sandbox.AnnotationWhenUnready] == sandbox.WhenUnreadyBaseline {
			continue
		}
		c := Fork(f).Cause()
		if c.Code == Routed || c.Partial || slices.ContainsFunc(f.Pods, served) && (!c.Path || c.Outlook == OutlookWaits) {
			continue
		}
		if found == nil || c.Outlook > found.Outlook {
			found = &Block{f.Deployment.Name, c}
		}
	}
	return found
}

// served reports whether requests go to a fork's pod.
func served(p *corev1.Pod) bool {
	return p.DeletionTimestamp == nil && isTrue(p, corev1.ContainersReady) && isTrue(p, sandbox.ConditionRouted)
}

// LogCommand is the command that reads the relevant log; nil if there is none.
func (b *Block) LogCommand(namespace string) []string {
	if b.Log == nil {
		return nil
	}
	command := kubectl("logs", "deploy/"+b.Fork, "--container="+b.Log.Container, "-n", namespace)
	if b.Log.Previous {
		command = append(command, "--previous")
	}
	return command
}

// Final reports that waiting alone does not help.
func (b *Block) Final() bool { return b.Outlook > OutlookWaits }

// OfSandbox returns the facts of all forks of a sandbox, as far as its own objects contain them. published is the value
// in its ConfigMap.
func OfSandbox(forks []appsv1.Deployment, pods []corev1.Pod, published string, now time.Time) []Facts {
	said := ParsePublished(published)
	all := make([]Facts, len(forks))
	for i := range forks {
		d := &forks[i]
		all[i] = Facts{Now: now, Deployment: d, Published: said[d.Name]}
		for j := range pods {
			if pods[j].Labels[sandbox.LabelWorkload] == d.Labels[sandbox.LabelWorkload] {
				all[i].Pods = append(all[i].Pods, &pods[j])
			}
		}
	}
	return all
}
