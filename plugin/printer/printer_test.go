package printer

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/kubectl/pkg/scheme"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// The commands in what is printed repeat these.
func chosen() Globals { return Globals{"--context=dev", "--namespace=shop"} }

func noon() time.Time { return time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC) }

// since is a time before noon.
func since(d time.Duration) metav1.Time { return metav1.NewTime(noon().Add(-d)) }

// format returns the printers of -o.
func format(output string) *genericclioptions.PrintFlags {
	f := genericclioptions.NewPrintFlags("").WithTypeSetter(scheme.Scheme)
	*f.OutputFormat = output
	return f
}

// compare compares what was printed with the golden text, which begins with a line break.
func compare(t *testing.T, got, want string) {
	t.Helper()
	if want = strings.TrimPrefix(want, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// configMap is that of the sandbox pr-42, as a typed client returns it.
func configMap() *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Name: "sandbox-pr-42", Namespace: "shop", CreationTimestamp: since(2 * time.Hour),
			Labels: map[string]string{sandbox.LabelSandbox: "pr-42", sandbox.LabelRole: sandbox.RoleSandbox},
		},
		Data: map[string]string{sandbox.DataKey: "pr-42", sandbox.DataCreatedBy: "jane"},
	}
}

// deployment is the fork of a Deployment, as a typed client returns it.
func deployment(baseline string, annotations map[string]string) *appsv1.Deployment {
	replicas := int32(1)
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{
			Name: baseline + "-pr-42", Namespace: "shop", CreationTimestamp: since(time.Hour), Annotations: annotations,
			Labels: map[string]string{
				sandbox.LabelSandbox: "pr-42", sandbox.LabelRole: sandbox.RoleFork,
				sandbox.LabelWorkload: "deployment." + baseline,
			},
		},
		Spec:   appsv1.DeploymentSpec{Replicas: &replicas},
		Status: appsv1.DeploymentStatus{AvailableReplicas: 1},
	}
}

// policy is that of the fork of api, as a typed client returns it.
func policy() *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{
		Name: "api-pr-42-ingress", Namespace: "shop",
		Labels:      map[string]string{sandbox.LabelWorkload: "deployment.api"},
		Annotations: map[string]string{sandbox.AnnotationPolicies: "deny,web"},
	}}
}

// object returns a typed object as a dynamic client returns it.
func object(t *testing.T, o runtime.Object) *unstructured.Unstructured {
	t.Helper()
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		t.Fatal(err)
	}
	return &unstructured.Unstructured{Object: content}
}
