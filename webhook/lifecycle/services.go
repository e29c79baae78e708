package lifecycle

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// isSwitched says whether `route` has put names into a Service's targetPorts, which the guard watches.
func isSwitched(s *corev1.Service) bool { return s.Labels[sandbox.LabelRole] == sandbox.RoleService }

// stripService keeps of a Service what says to which pods it leads, and what the guard needs.
func stripService(o any) (any, error) {
	s, ok := o.(*corev1.Service)
	if !ok {
		return o, nil // a tombstone
	}
	kept := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name: s.Name, Namespace: s.Namespace, UID: s.UID, ResourceVersion: s.ResourceVersion, DeletionTimestamp: s.DeletionTimestamp,
		},
		Spec: corev1.ServiceSpec{Type: s.Spec.Type, ClusterIP: s.Spec.ClusterIP, Selector: s.Spec.Selector, Ports: s.Spec.Ports},
	}
	if role, ok := s.Labels[sandbox.LabelRole]; ok {
		kept.Labels = map[string]string{sandbox.LabelRole: role}
	}
	for _, name := range []string{sandbox.AnnotationTargetPorts, sandbox.AnnotationPutBack} {
		if value, ok := s.Annotations[name]; ok {
			if kept.Annotations == nil {
				kept.Annotations = map[string]string{}
			}
			kept.Annotations[name] = value
		}
	}
	return kept, nil
}
