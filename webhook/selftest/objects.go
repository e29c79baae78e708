package selftest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Responses of the application, by the pod that it runs in.
const (
	answerBaseline = "baseline"
	answerFork     = "fork"
	answerReplaced = "replaced"
)

// EnvAnswer is the variable that holds the application's response.
const EnvAnswer = "SELFTEST_ANSWER"

// AppCommand returns the arguments of this program that start the application.
func AppCommand() []string { return []string{"selftest", "app"} }

const (
	appLabel    = "app"
	portName    = "http"
	appPort     = 8080
	servicePort = 80
	// lifetime bounds that of the sandbox, in case this program cannot delete it.
	lifetime = 15 * time.Minute
)

func (t *test) meta(labels map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: t.name, Namespace: t.Namespace, Labels: labels}
}

func (t *test) selector() string { return appLabel + "=" + t.name }

// service is a Service as `route` leaves it: its targetPort is a name, and an annotation has the number.
func (t *test) service() *corev1.Service {
	port := corev1.ServicePort{Name: portName, Protocol: corev1.ProtocolTCP, Port: servicePort, TargetPort: intstr.FromString(portName)}
	meta := t.meta(map[string]string{sandbox.LabelRole: sandbox.RoleService})
	meta.Annotations = map[string]string{sandbox.AnnotationTargetPorts: sandbox.FormatTargetPorts(sandbox.TargetPorts{
		sandbox.PortKey(string(port.Protocol), port.Port): {Number: appPort, Name: portName},
	})}
	return &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{Selector: map[string]string{appLabel: t.name}, Ports: []corev1.ServicePort{port}}}
}

// deployment is the baseline: if routed as `route` leaves it, otherwise as its owner wrote it, with an unnamed port.
func (t *test) deployment(answer string, routed bool) *appsv1.Deployment {
	labels, annotations, name := map[string]string{appLabel: t.name}, map[string]string{}, ""
	if routed {
		name = portName
		labels[sandbox.LabelRole] = sandbox.RoleBaseline
		labels[sandbox.LabelWorkload] = sandbox.WorkloadLabel("Deployment", t.name)
		annotations[sandbox.AnnotationPorts] = sandbox.FormatPorts([]sandbox.Port{{Name: portName, Number: appPort}})
	}
	pod := corev1.PodSpec{
		AutomountServiceAccountToken: ptr.To(false),
		SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: ptr.To(true), RunAsUser: ptr.To(int64(65532)),
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
		TerminationGracePeriodSeconds: ptr.To(int64(10)),
		Containers: []corev1.Container{{
			Name: "app", Image: t.Image, ImagePullPolicy: corev1.PullPolicy(t.PullPolicy), Args: AppCommand(),
			Env:   []corev1.EnvVar{{Name: EnvAnswer, Value: answer}},
			Ports: []corev1.ContainerPort{{Name: name, ContainerPort: appPort}},
			ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 60,
				ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(appPort)}}},
			Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("5m"), corev1.ResourceMemory: resource.MustParse("16Mi")},
				Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m"), corev1.ResourceMemory: resource.MustParse("128Mi")},
			},
			SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: ptr.To(false), ReadOnlyRootFilesystem: ptr.To(true),
				Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
		}},
	}
	for _, name := range t.PullSecrets {
		pod.ImagePullSecrets = append(pod.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
	return &appsv1.Deployment{ObjectMeta: t.meta(map[string]string{appLabel: t.name}), Spec: appsv1.DeploymentSpec{
		Replicas: ptr.To(int32(1)),
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{appLabel: t.name}},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: annotations}, Spec: pod},
	}}
}

// makeFork creates the sandbox's ConfigMap and its fork.
func (t *test) makeFork(ctx context.Context) (*appsv1.Deployment, error) {
	owner := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: sandbox.ConfigMapName(t.name), Namespace: t.Namespace, Labels: map[string]string{
			sandbox.LabelSandbox: t.name, sandbox.LabelRole: sandbox.RoleSandbox, sandbox.LabelKey: t.name,
		}},
		Data: map[string]string{sandbox.DataKey: t.name, sandbox.DataExpires: time.Now().Add(lifetime).UTC().Format(time.RFC3339)},
	}
	owner, err := t.client.CoreV1().ConfigMaps(t.Namespace).Create(ctx, owner, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("create the sandbox: %w", err)
	}
	baseline, err := t.client.AppsV1().Deployments(t.Namespace).Get(ctx, t.name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read the baseline: %w", err)
	}
	baseline.TypeMeta = metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(baseline)
	if err != nil {
		return nil, err
	}
	patch, err := json.Marshal([]map[string]any{{"op": "replace", "path": "/spec/containers/0/env/0/value", "value": answerFork}})
	if err != nil {
		return nil, err
	}
	made, err := fork.Deployment(&unstructured.Unstructured{Object: object}, fork.Options{
		Name: sandbox.ForkName("Deployment", t.name, t.name), Sandbox: t.name, Key: t.name, WhenUnready: sandbox.WhenUnreadyError,
		Replicas: 1, Patch: patch, OwnerUID: string(owner.UID),
	})
	if err != nil {
		return nil, err
	}
	var deployment appsv1.Deployment
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(made.Object, &deployment); err != nil {
		return nil, err
	}
	return &deployment, t.create(ctx, &deployment)
}

func (t *test) create(ctx context.Context, objects ...any) error {
	for _, o := range objects {
		var err error
		switch o := o.(type) {
		case *corev1.Service:
			_, err = t.client.CoreV1().Services(t.Namespace).Create(ctx, o, metav1.CreateOptions{})
		case *appsv1.Deployment:
			_, err = t.client.AppsV1().Deployments(t.Namespace).Create(ctx, o, metav1.CreateOptions{})
		}
		if err != nil {
			return fmt.Errorf("create the test's objects in namespace %s: %w", t.Namespace, err)
		}
	}
	return nil
}

// pods returns the pods that match a selector and are not being deleted.
func (t *test) pods(ctx context.Context, selector string) ([]corev1.Pod, error) {
	list, err := t.client.CoreV1().Pods(t.Namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, err
	}
	var living []corev1.Pod
	for _, p := range list.Items {
		if p.DeletionTimestamp == nil {
			living = append(living, p)
		}
	}
	return living, nil
}

func roleOf(pod *corev1.Pod) string { return pod.Labels[sandbox.LabelRole] }

// answers sends a request to the Service, with the key in the header named by carrier unless that is empty. It returns
// an error if the response is not the wanted one. Only a fork's response names its pod.
func (t *test) answers(ctx context.Context, carrier, want string) error {
	service, err := t.client.CoreV1().Services(t.Namespace).Get(ctx, t.name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s:%d/", bracket(service.Spec.ClusterIP), servicePort), nil)
	if err != nil {
		return err
	}
	switch carrier {
	case "":
	case "baggage":
		req.Header.Set(carrier, t.KeyMember+"="+t.name)
	default:
		req.Header.Set(carrier, t.name)
	}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return err
	}
	by := resp.Header.Get(sandbox.HeaderServedBy)
	switch {
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("answer %s: %s", resp.Status, strings.TrimSpace(string(body)))
	case string(body) != want:
		return fmt.Errorf("the %s answers in place of the %s", body, want)
	case carrier != "" && by == "":
		return fmt.Errorf("the answer has no header %s", sandbox.HeaderServedBy)
	case carrier == "" && by != "":
		return fmt.Errorf("the answer to a request without a key has header %s: %s", sandbox.HeaderServedBy, by)
	}
	return nil
}

func bracket(ip string) string {
	if strings.Contains(ip, ":") {
		return "[" + ip + "]"
	}
	return ip
}

// clean deletes everything that the test created. The sandbox's ConfigMap owns the fork.
func (t *test) clean(ctx context.Context) error {
	options := metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)}
	var errs []error
	for what, err := range map[string]error{
		"configmap/" + sandbox.ConfigMapName(t.name): t.client.CoreV1().ConfigMaps(t.Namespace).Delete(ctx, sandbox.ConfigMapName(t.name), options),
		"deployment/" + t.name:                       t.client.AppsV1().Deployments(t.Namespace).Delete(ctx, t.name, options),
		"service/" + t.name:                          t.client.CoreV1().Services(t.Namespace).Delete(ctx, t.name, options),
	} {
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("%s in namespace %s is left: delete it: %w", what, t.Namespace, err))
		}
	}
	return errors.Join(errs...)
}
