package sandboxes

import (
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// DescribeSandboxes returns all sandboxes of the inventory as objects for programs. command formats a command for
// pasting.
func (v *Inventory) DescribeSandboxes(command func([]string) string) status.SandboxStatusList {
	list := status.SandboxStatusList{
		TypeMeta: metav1.TypeMeta{APIVersion: status.APIVersion, Kind: status.KindSandboxList}, Items: []status.SandboxStatus{},
	}
	for _, s := range v.Sandboxes() {
		list.Items = append(list.Items, v.DescribeSandbox(&s, command))
	}
	return list
}

// DescribeSandbox returns a sandbox of the inventory as an object for programs. command formats a command for
// pasting.
func (v *Inventory) DescribeSandbox(s *Sandbox, command func([]string) string) status.SandboxStatus {
	found := v.State(s)
	out := status.SandboxStatus{
		TypeMeta: metav1.TypeMeta{APIVersion: status.APIVersion, Kind: status.KindSandbox},
		Metadata: status.Metadata{Name: s.Name, Namespace: s.Namespace, CreationTimestamp: timeOf(metav1.NewTime(s.Created))},
		Key:      s.Key, State: found.Word(), CreatedBy: s.CreatedBy, Expires: timeOf(metav1.NewTime(s.Expires)),
		Conditions: []status.Condition{routedCondition(found, command)},
		Forks:      []status.ForkStatus{},
	}
	if s.ConfigMap != nil {
		out.Metadata.UID, out.Metadata.Labels = string(s.ConfigMap.UID), s.ConfigMap.Labels
	}
	if v.Services != nil {
		out.URLs = append(out.URLs, PreviewURLs(v.Gateway, s, v.servicesIn(s.Namespace), v.podsOf(s))...)
	}
	for i := range s.Forks {
		f := v.describeFork(s, &s.Forks[i], command)
		out.Requests = addRequests(out.Requests, f.Requests)
		out.Forks = append(out.Forks, f)
	}
	return out
}

func (v *Inventory) describeFork(s *Sandbox, d *appsv1.Deployment, command func([]string) string) status.ForkStatus {
	found := v.ForkState(d)
	f := status.ForkStatus{
		Name: d.Name, Workload: WorkloadOf(d), State: found.Word(), CreationTimestamp: timeOf(d.CreationTimestamp),
		Replicas: ptr.Deref(d.Spec.Replicas, 1), ReadyReplicas: d.Status.ReadyReplicas,
		Conditions: []status.Condition{routedCondition(found, command), v.upToDate(d, command)},
		URLs:       v.urls(d), Requests: v.requests(s.Counts[d.Labels[sandbox.LabelWorkload]]),
	}
	if pods := v.Report(d).Pods; len(pods) > 0 {
		for _, r := range plan.RunningImages(pods[0]) {
			f.Images = append(f.Images, status.Image{Container: r.Container, Image: r.Image, Digest: r.Digest})
		}
	}
	return f
}

// upToDate is the condition of that name.
func (v *Inventory) upToDate(d *appsv1.Deployment, command func([]string) string) status.Condition {
	c := status.Condition{Type: status.ConditionUpToDate, Status: metav1.ConditionTrue, Reason: status.ReasonUpToDate}
	baselineState, known := v.BaselineStates[d.Namespace+"/"+d.Name]
	switch {
	case !known:
		c.Status, c.Reason = metav1.ConditionUnknown, status.ReasonBaselineError
		c.Message = "the baseline " + WorkloadOf(d) + " can't be read"
	case baselineState.Gone:
		c.Status, c.Reason = metav1.ConditionFalse, status.ReasonBaselineGone
	case baselineState.Conflict != "":
		c.Status, c.Reason = metav1.ConditionFalse, status.ReasonConflict
	case baselineState.Behind:
		c.Status, c.Reason = metav1.ConditionFalse, status.ReasonBehind
	case d.Annotations[sandbox.AnnotationBaseline] == "":
		c.Status, c.Reason = metav1.ConditionUnknown, status.ReasonNotRecorded
	}
	if p := baselineState.Problem(d); p != nil {
		c.Message, c.Command = p.What, command(p.Fix)
	}
	return c
}

// urls returns where requests for a fork enter from inside the cluster.
func (v *Inventory) urls(d *appsv1.Deployment) (urls []string) {
	pods := v.baselinePods(d.Namespace, d.Labels[sandbox.LabelWorkload])
	for _, s := range v.servicesIn(d.Namespace) {
		if len(pods) == 0 || !plan.Selects(&s, pods[0].Labels) {
			continue
		}
		for _, p := range s.Spec.Ports {
			if plan.Protocol(p.Protocol) == corev1.ProtocolTCP {
				urls = append(urls, "http://"+plan.Endpoint{Service: s.Name, Namespace: s.Namespace, Port: p.Port}.Address()+"/")
			}
		}
	}
	return urls
}

func (v *Inventory) servicesIn(namespace string) (services []corev1.Service) {
	if v.Services == nil {
		return nil
	}
	for _, s := range *v.Services {
		if s.Namespace == namespace {
			services = append(services, s)
		}
	}
	return services
}

// podsOf returns the pods of a sandbox's baselines.
func (v *Inventory) podsOf(s *Sandbox) (pods []corev1.Pod) {
	for i := range s.Forks {
		for _, p := range v.baselinePods(s.Namespace, s.Forks[i].Labels[sandbox.LabelWorkload]) {
			pods = append(pods, *p)
		}
	}
	return pods
}

func (v *Inventory) requests(c route.Count) status.Requests {
	return status.Requests{Fork: c.Fork, Baseline: c.FellBack, Refused: c.Refused, Unfinished: c.Unfinished, Current: v.Current, Missing: v.Missing}
}

func addRequests(a, b status.Requests) status.Requests {
	return status.Requests{
		Fork: a.Fork + b.Fork, Baseline: a.Baseline + b.Baseline, Refused: a.Refused + b.Refused, Unfinished: a.Unfinished + b.Unfinished,
		Current: b.Current, Missing: b.Missing,
	}
}

// DescribeRoutes returns the routed workloads of the inventory as objects for programs.
func (v *Inventory) DescribeRoutes(command func([]string) string) status.RouteStatusList {
	list := status.RouteStatusList{TypeMeta: metav1.TypeMeta{APIVersion: status.APIVersion, Kind: status.KindRouteList}, Items: []status.RouteStatus{}}
	for _, w := range v.Routed {
		list.Items = append(list.Items, v.describeRoute(w, command))
	}
	list.Items = append(list.Items, v.lostRoutes(command)...)
	return list
}

// lostRoutes returns the forks whose workloads are not routed or no longer exist.
func (v *Inventory) lostRoutes(command func([]string) string) (lost []status.RouteStatus) {
	for _, s := range v.Sandboxes() {
		for i := range s.Forks {
			d := &s.Forks[i]
			if slices.ContainsFunc(v.Routed, func(w *plan.Workload) bool {
				return w.Namespace() == d.Namespace && w.Label() == d.Labels[sandbox.LabelWorkload]
			}) ||
				d.Spec.Template.Annotations[sandbox.AnnotationPorts] == "" {
				continue
			}
			found := v.ForkState(d)
			_, name, _ := strings.Cut(d.Labels[sandbox.LabelWorkload], ".")
			lost = append(lost, status.RouteStatus{
				TypeMeta: metav1.TypeMeta{APIVersion: status.APIVersion, Kind: status.KindRoute},
				Metadata: status.Metadata{Name: name, Namespace: d.Namespace}, Workload: WorkloadOf(d), State: string(health.StateNotRouted),
				Conditions: []status.Condition{routedCondition(found, command)}, Routes: []status.Route{v.describeEnd(&s, d)},
			})
		}
	}
	return lost
}

// describeEnd describes the fork that a route leads to.
func (v *Inventory) describeEnd(s *Sandbox, d *appsv1.Deployment) status.Route {
	return status.Route{
		Sandbox: s.Name, Key: s.Key, Fork: d.Name, State: v.ForkState(d).Word(), CreationTimestamp: timeOf(d.CreationTimestamp),
		Replicas: ptr.Deref(d.Spec.Replicas, 1), ReadyReplicas: d.Status.ReadyReplicas, Requests: v.requests(s.Counts[d.Labels[sandbox.LabelWorkload]]),
	}
}

func (v *Inventory) describeRoute(w *plan.Workload, command func([]string) string) status.RouteStatus {
	found := v.RouteState(w)
	out := status.RouteStatus{
		TypeMeta: metav1.TypeMeta{APIVersion: status.APIVersion, Kind: status.KindRoute},
		Metadata: status.Metadata{Name: w.Name(), Namespace: w.Namespace(), CreationTimestamp: timeOf(w.Object.GetCreationTimestamp()),
			UID: string(w.Object.GetUID()), Labels: w.Object.GetLabels()},
		Workload: w.Arg(), State: found.Word(),
		Conditions: []status.Condition{routedCondition(found, command)},
		Routes:     []status.Route{},
	}
	for _, p := range v.baselinePods(w.Namespace(), w.Label()) {
		if plan.Live(p) {
			out.Pods++
			if health.HasRouter(p) {
				out.Routers++
			}
		}
	}
	template, err := w.PodTemplate()
	if err == nil {
		if ports := template.Annotations[sandbox.AnnotationPorts]; ports != "" {
			out.Ports = strings.Split(ports, ",")
		}
		for _, s := range v.servicesIn(w.Namespace()) {
			if plan.Selects(&s, template.Labels) {
				out.Services = append(out.Services, s.Name)
			}
		}
	}
	for _, s := range v.Sandboxes() {
		for i := range s.Forks {
			d := &s.Forks[i]
			if s.Namespace == w.Namespace() && d.Labels[sandbox.LabelWorkload] == w.Label() {
				out.Routes = append(out.Routes, v.describeEnd(&s, d))
			}
		}
	}
	return out
}

// routedCondition returns a finding as the condition Routed.
func routedCondition(f Finding, command func([]string) string) status.Condition {
	c := status.Condition{Type: status.ConditionRouted, Status: metav1.ConditionFalse, Reason: string(f.Code), Message: f.Message}
	if f.Fork != "" && f.Code != health.Routed && f.Code != health.Running {
		c.Message = fmt.Sprintf("%s: %s", plan.DeploymentName(f.Fork), f.Message)
	}
	switch {
	case f.Unknown:
		c.Status, c.Reason, c.Message = metav1.ConditionUnknown, string(health.RoutingUnknown), "whether the routers still have the route is not known: the control plane has published nothing"
	case f.Code == health.Routed || f.Code == health.Running:
		c.Status = metav1.ConditionTrue
	}
	if len(f.Fix) > 0 {
		c.Command = command(f.Fix)
	}
	return c
}

func timeOf(t metav1.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
