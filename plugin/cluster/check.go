package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

const (
	jobInterval   = 500 * time.Millisecond // between two looks at a Job that has ended, until its routers have said what they sent
	stateInterval = 3 * time.Second        // between two looks at the sandboxes that it tests
	reportTimeout = 5 * time.Second        // for the kubelet to tell the end of a router after that of its Job

	maxPrinted = 64 << 20 // bytes of what a built-in check prints: kubelets keep less of a log unless told otherwise
)

// Check runs the Job of a check of a variant to its end and returns what was seen of it, and the end of the failed test's log. The
// error is one of the client or of the caller's rights, or ctx's: then the Job is left where it is.
func (c *Client) Check(ctx context.Context, x *Experiment, v *experiment.Variant, job *batchv1.Job) (*experiment.Evidence, []string, error) {
	all, w, err := c.runJob(ctx, x, []experiment.Variant{*v}, "", job)
	if err != nil {
		return nil, nil, err
	}
	e, log := all[0], []string(nil)
	if w != nil {
		e.Sent = w.sent()
		if !e.Job.Complete {
			log = w.log(ctx)
		}
	}
	return e, log, nil
}

// Compare runs the Job of a built-in check of all the variants, and of the baseline by a key of its own, to its end and returns what was
// seen of each, all that the probe printed, and, where it failed, the end of that for people. Its error is as Check's.
func (c *Client) Compare(
	ctx context.Context, x *Experiment, variants []experiment.Variant, baseline string, job *batchv1.Job,
) (all []*experiment.Evidence, printed io.Reader, log []string, err error) {
	all, w, err := c.runJob(ctx, x, variants, baseline, job)
	if err != nil {
		return nil, nil, nil, err
	}
	printed = strings.NewReader("")
	if w == nil {
		return all, printed, nil, nil
	}
	if !all[0].Job.Complete {
		log = w.log(ctx)
	}
	for _, p := range w.sorted() {
		limit := int64(maxPrinted)
		b, err := c.Kube.CoreV1().Pods(p.Namespace).GetLogs(p.Name, &corev1.PodLogOptions{Container: p.Spec.Containers[0].Name, LimitBytes: &limit}).DoRaw(ctx)
		switch {
		case ctx.Err() != nil:
			return nil, nil, nil, ctx.Err()
		case apierrors.IsForbidden(err):
			return nil, nil, nil, Explain(err) // who may not read logs can't have any built-in check
		case err == nil:
			printed = bytes.NewReader(b)
		}
	}
	return all, printed, log, nil
}

// runJob runs a Job to its end, and returns what was seen of it and of each of the variants from before it was made until after it
// ended; no jobWatch where it could not be made. baseline is the key of what it sends to the baseline; it may be empty.
func (c *Client) runJob(
	ctx context.Context, x *Experiment, variants []experiment.Variant, baseline string, job *batchv1.Job,
) ([]*experiment.Evidence, *jobWatch, error) {
	var keys []string
	if baseline != "" {
		keys = append(keys, baseline)
	}
	for _, v := range variants {
		keys = append(keys, v.Key)
	}
	if err := c.ObserveKeys(ctx, x, keys); err != nil {
		return nil, nil, err
	}
	passed, _, known := c.Observed(ctx, x)
	all := make([]*experiment.Evidence, len(variants))
	for i := range all {
		all[i] = &experiment.Evidence{}
	}
	sandboxes := make([]string, len(variants))
	for i, v := range variants {
		sandboxes[i] = v.Sandbox
	}
	look := func(exact bool, keep func(*experiment.Evidence, experiment.State)) error {
		states, err := c.observe(ctx, sandboxes, exact)
		if err != nil {
			return err
		}
		for i, state := range states {
			all[i].Seen.See(&state)
			if keep != nil {
				keep(all[i], state)
			}
		}
		return nil
	}
	if err := look(true, func(e *experiment.Evidence, s experiment.State) { e.Before = s }); err != nil {
		return nil, nil, err
	}
	made, err := c.makeJob(ctx, job)
	if err != nil {
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		for _, e := range all {
			e.Job.Broken = "the Job could not be made: " + err.Error()
			e.After = e.Before
		}
		return all, nil, nil
	}
	w := &jobWatch{client: c, job: made, pods: map[types.UID]corev1.Pod{}}
	if err := w.run(ctx, func() error { return look(false, nil) }); err != nil {
		return nil, nil, err
	}
	if err := w.lookForReports(ctx); err != nil {
		return nil, nil, err
	}
	if err := look(true, func(e *experiment.Evidence, s experiment.State) { e.After = s }); err != nil {
		return nil, nil, err
	}
	after, missing, ok := c.Observed(ctx, x)
	for i, v := range variants {
		e := all[i]
		e.Job = w.end()
		if known && ok {
			e.Passed, e.PassedMissing = experiment.PassedIn(passed, after, v.Key), missing
			e.Baseline = experiment.PassedIn(passed, after, baseline)
		}
	}
	return all, w, nil
}

// A jobWatch is a Job, with every pod of its that was ever seen, as it was seen last: the Job controller deletes those of a Job that took
// too long.
type jobWatch struct {
	client *Client
	job    *batchv1.Job
	gone   bool
	pods   map[types.UID]corev1.Pod
	begun  time.Time // when it was first seen not to be suspended
}

// run watches the Job and its pods until it has ended, or should have long ago, and calls beside every now and then. What a watch that
// was cut off did not see, it looks for then too.
func (w *jobWatch) run(ctx context.Context, beside func() error) error {
	watching, stop := context.WithCancel(ctx)
	defer stop()
	events := make(chan func(*jobWatch) error)
	ns, nothing := w.job.Namespace, func(*jobWatch) {}
	go follow(watching, metav1.ListOptions{FieldSelector: "metadata.name=" + w.job.Name}, w.client.Kube.BatchV1().Jobs(ns).Watch, events, nothing, (*jobWatch).seeJob)
	go follow(watching, w.selectPods(), w.client.Kube.CoreV1().Pods(ns).Watch, events, nothing, (*jobWatch).seePod)
	tick := time.NewTicker(stateInterval)
	defer tick.Stop()
	for !w.ended() && !w.late() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case event := <-events:
			if err := event(w); err != nil {
				return err
			}
		case <-tick.C:
			if err := w.look(ctx); err != nil {
				return err
			}
			if err := beside(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *jobWatch) selectPods() metav1.ListOptions {
	return metav1.ListOptions{LabelSelector: batchv1.ControllerUidLabel + "=" + string(w.job.UID)}
}

func (w *jobWatch) seeJob(job *batchv1.Job, gone bool) {
	if job.UID == w.job.UID {
		w.job, w.gone = job, gone
	}
	if w.begun.IsZero() && (w.job.Spec.Suspend == nil || !*w.job.Spec.Suspend) {
		w.begun = time.Now()
	}
}

func (w *jobWatch) seePod(p *corev1.Pod, _ bool) { w.pods[p.UID] = *p }

// look reads the Job and its pods as they are.
func (w *jobWatch) look(ctx context.Context) error {
	job, err := w.client.Kube.BatchV1().Jobs(w.job.Namespace).Get(ctx, w.job.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err) || err == nil && job.UID != w.job.UID:
		w.gone = true
	case err != nil:
		return Explain(err)
	default:
		w.seeJob(job, false)
	}
	pods, err := w.client.Kube.CoreV1().Pods(w.job.Namespace).List(ctx, w.selectPods())
	if err != nil {
		return Explain(err)
	}
	for i := range pods.Items {
		w.seePod(&pods.Items[i], false)
	}
	return nil
}

func (w *jobWatch) condition(of batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range w.job.Status.Conditions {
		if c := &w.job.Status.Conditions[i]; c.Type == of && c.Status == corev1.ConditionTrue {
			return c
		}
	}
	return nil
}

func (w *jobWatch) ended() bool {
	return w.gone || w.condition(batchv1.JobComplete) != nil || w.condition(batchv1.JobFailed) != nil
}

// late says that the Job should have ended long ago: nothing runs it.
func (w *jobWatch) late() bool {
	return !w.ended() && !w.begun.IsZero() && time.Since(w.begun) > experiment.Deadline(w.job)
}

// lookForReports looks until every router has said what it sent, or for so long that it will not any more.
func (w *jobWatch) lookForReports(ctx context.Context) error {
	for end := time.Now().Add(reportTimeout); ; {
		if err := w.look(ctx); err != nil {
			return err
		}
		waiting := false
		for _, p := range w.pods {
			waiting = waiting || hasRouter(&p) && routerEnd(&p) == nil && p.DeletionTimestamp == nil
		}
		if !waiting || w.gone || time.Now().After(end) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(jobInterval):
		}
	}
}

// sent adds up what the routers of all pods said; nil where one said nothing.
func (w *jobWatch) sent() *route.Sent {
	var all route.Sent
	for _, p := range w.pods {
		end := routerEnd(&p)
		if end == nil {
			return nil
		}
		var one route.Sent
		if json.Unmarshal([]byte(end.Message), &one) != nil {
			return nil
		}
		all = all.Add(one)
	}
	if len(w.pods) == 0 {
		return nil
	}
	return &all
}

// end says how the Job ended.
func (w *jobWatch) end() experiment.JobEnd {
	j := experiment.JobEnd{Complete: w.condition(batchv1.JobComplete) != nil, Pods: len(w.pods)}
	if c := w.condition(batchv1.JobFailed); c != nil {
		j.Failed, j.Reason, j.Message = true, c.Reason, c.Message
	}
	if w.gone {
		j.Broken = "the Job was deleted before it ended"
	}
	for _, p := range w.sorted() {
		if !hasRouter(&p) && p.Labels[sandbox.LabelRole] == sandbox.RoleCheck {
			j.Uninjected = append(j.Uninjected, "pod/"+p.Name)
		}
		if why := broken(&p); why != "" && !j.Complete && j.Broken == "" {
			j.Broken = "pod/" + p.Name + " " + why
		}
		for _, c := range p.Status.ContainerStatuses {
			if t := c.State.Terminated; t != nil && t.ExitCode != 0 && j.Container == "" {
				j.Container, j.Exit = c.Name, t.ExitCode
			}
		}
	}
	return j
}

// sorted returns the pods, the oldest first.
func (w *jobWatch) sorted() []corev1.Pod {
	var out []corev1.Pod
	for _, p := range w.pods {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b corev1.Pod) int {
		if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out
}

// broken says what kept a pod from running its test to an end of the test's own; empty: nothing did.
func broken(p *corev1.Pod) string {
	for _, c := range p.Status.Conditions {
		switch {
		case c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue:
			return "was evicted: " + c.Message
		case c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse:
			return "found no node: " + c.Message
		}
	}
	if p.Status.Reason == "Evicted" || p.Status.Reason == "NodeLost" || p.Status.Reason == "UnexpectedAdmissionError" {
		return "was evicted: " + p.Status.Message
	}
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if s := c.State.Waiting; s != nil && s.Reason != "PodInitializing" && s.Reason != "ContainerCreating" && s.Reason != "" {
			return fmt.Sprintf("could not start container %s: %s", c.Name, strings.TrimSpace(s.Reason+" "+s.Message))
		}
		if t := c.State.Terminated; t != nil && t.Reason == "OOMKilled" {
			return fmt.Sprintf("ran out of memory in container %s", c.Name)
		}
		if t := c.State.Terminated; t != nil && (t.Reason == "StartError" || t.Reason == "ContainerCannotRun") {
			return fmt.Sprintf("could not start container %s: %s", c.Name, t.Message)
		}
	}
	return ""
}

// log returns the end of the log of the test that failed, or of the last that ran.
func (w *jobWatch) log(ctx context.Context) []string {
	pods := w.sorted()
	slices.Reverse(pods)
	for _, p := range pods {
		container := p.Spec.Containers[0].Name
		for _, c := range p.Status.ContainerStatuses {
			if t := c.State.Terminated; t != nil && t.ExitCode != 0 {
				container = c.Name
				break
			}
		}
		tail, limit := int64(20), int64(64<<10)
		body, err := w.client.Kube.CoreV1().Pods(p.Namespace).GetLogs(p.Name, &corev1.PodLogOptions{Container: container, TailLines: &tail, LimitBytes: &limit}).Stream(ctx)
		if err != nil {
			continue // it is gone, or the caller may not: a nicety
		}
		lines := printable(body)
		_ = body.Close()
		for i, line := range lines {
			if r := []rune(line); len(r) > maxLogLine {
				lines[i] = string(r[:maxLogLine]) + "..."
			}
		}
		return lines
	}
	return nil
}

// maxLogLine keeps the reports of many checks within one ConfigMap.
const maxLogLine = 160

func hasRouter(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == sandbox.RouterContainer })
}

func routerStatus(p *corev1.Pod) *corev1.ContainerStatus {
	for i := range p.Status.InitContainerStatuses {
		if s := &p.Status.InitContainerStatuses[i]; s.Name == sandbox.RouterContainer {
			return s
		}
	}
	return nil
}

// routerEnd is how a pod's router ended; nil while it runs, or where there is none. One that was restarted has lost what it counted.
func routerEnd(p *corev1.Pod) *corev1.ContainerStateTerminated {
	if s := routerStatus(p); s != nil && s.RestartCount == 0 {
		return s.State.Terminated
	}
	return nil
}

// observe reads what there is of sandboxes: all by the same few calls, so that looking at many disturbs little of what is measured.
// With exact, the routers are asked for their counts; without, what there is may be that of a moment ago, and counts are left out.
func (c *Client) observe(ctx context.Context, names []string, exact bool) ([]experiment.State, error) {
	var (
		forks    *appsv1.DeploymentList
		sets     *appsv1.ReplicaSetList
		pods     *corev1.PodList
		services *corev1.ServiceList
	)
	every := metav1.ListOptions{ResourceVersion: "0"} // from the API server's cache
	if exact {
		every.ResourceVersion = ""
	}
	of := every
	of.LabelSelector = anyOf(names) + "," + sandbox.LabelRole + "=" + sandbox.RoleFork
	ns := c.Namespace
	calls := []func() error{
		func() (err error) { forks, err = c.Kube.AppsV1().Deployments(ns).List(ctx, of); return err },
		func() (err error) { sets, err = c.Kube.AppsV1().ReplicaSets(ns).List(ctx, of); return err },
		func() (err error) { pods, err = c.Kube.CoreV1().Pods(ns).List(ctx, every); return err },
		func() (err error) { services, err = c.Kube.CoreV1().Services(ns).List(ctx, every); return err },
	}
	states := make([]experiment.State, len(names))
	for i, name := range names {
		if exact {
			calls = append(calls, func() error { return c.count(ctx, name, &states[i]) })
		}
	}
	if err := together(calls...); err != nil {
		return nil, Explain(err)
	}
	for i, name := range names {
		s := &states[i]
		for j := range forks.Items {
			if d := &forks.Items[j]; d.DeletionTimestamp == nil && d.Labels[sandbox.LabelSandbox] == name {
				s.Forks = append(s.Forks, forkState(d, sets.Items, pods.Items))
			}
		}
		s.Routers, s.Bare = baselines(s.Forks, pods.Items, services.Items)
	}
	return states, nil
}

// count reads a sandbox's ConfigMap into s, with counts as they are now.
func (c *Client) count(ctx context.Context, name string, s *experiment.State) error {
	cm, err := c.sandboxConfigMap(ctx, name)
	if err != nil || !isSandbox(cm, name) || cm.DeletionTimestamp != nil {
		return err
	}
	cm, counted := c.counted(ctx, cm)
	s.Exists, s.UID, s.Counted = true, string(cm.UID), counted
	if counted {
		s.Uncounted = cm.Annotations[sandbox.AnnotationFlushMissing]
	}
	if sandboxes := plan.Sandboxes([]corev1.ConfigMap{*cm}, nil); len(sandboxes) > 0 {
		s.Counts = sandboxes[0].Counts
	}
	return nil
}

func forkState(d *appsv1.Deployment, sets []appsv1.ReplicaSet, pods []corev1.Pod) experiment.ForkState {
	status := plan.Diagnose(d, sets, pods)
	f := experiment.ForkState{
		Name: d.Name, Workload: d.Labels[sandbox.LabelWorkload], UID: string(d.UID),
		Revision: d.Annotations["deployment.kubernetes.io/revision"], Ready: status.Ready, Waiting: status.Waiting,
	}
	for i := range status.Pods {
		p := &status.Pods[i]
		fp := experiment.ForkPod{UID: string(p.UID), Name: p.Name}
		for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			fp.Restarts += c.RestartCount
		}
		for _, r := range plan.RunningImages(p) {
			fp.Images = append(fp.Images, experiment.Image{Container: r.Container, Image: r.Image, Digest: r.Digest})
		}
		f.Pods = append(f.Pods, fp)
	}
	return f
}

// baselines identifies the routers in front of the forks' baselines, and names the ready pods that requests could come to instead:
// those that a Service of a baseline's selects and that have none, whatever workload they are of.
func baselines(forks []experiment.ForkState, pods []corev1.Pod, services []corev1.Service) (routers, bare []string) {
	var selectors []labels.Selector
	for i := range pods {
		p := &pods[i]
		ours := p.Labels[sandbox.LabelRole] == sandbox.RoleBaseline &&
			slices.ContainsFunc(forks, func(f experiment.ForkState) bool { return f.Workload == p.Labels[sandbox.LabelWorkload] })
		if !ours || over(p) {
			continue
		}
		if s := routerStatus(p); s != nil {
			routers = append(routers, fmt.Sprintf("%s/%s/%d", p.Name, p.UID, s.RestartCount))
		}
		for _, s := range services {
			if len(s.Spec.Selector) == 0 {
				continue
			}
			if selector := labels.SelectorFromSet(s.Spec.Selector); selector.Matches(labels.Set(p.Labels)) {
				selectors = append(selectors, selector)
			}
		}
		if ready(p) && !hasRouter(p) {
			bare = append(bare, "pod/"+p.Name)
		}
	}
	for i := range pods {
		p := &pods[i]
		selected := slices.ContainsFunc(selectors, func(s labels.Selector) bool { return s.Matches(labels.Set(p.Labels)) })
		if selected && !over(p) && ready(p) && !hasRouter(p) && !slices.Contains(bare, "pod/"+p.Name) {
			bare = append(bare, "pod/"+p.Name)
		}
	}
	slices.Sort(routers)
	slices.Sort(bare)
	return routers, bare
}

func over(p *corev1.Pod) bool {
	return p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

func ready(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
