package live

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/appliers"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/ordinary"
)

const (
	workload = "deployment/" + ordinary.Name
	selector = "app=" + ordinary.Name
)

// A side is one of the two applications.
type side struct {
	*Cluster
	namespace string
	folder    string
	address   atomic.Pointer[string] // of its Service
}

func (c *Cluster) newSide(ctx context.Context, twin bool) (*side, error) {
	namespace, err := c.createNamespace(ctx, twin)
	if err != nil {
		return nil, err
	}
	s := &side{Cluster: c, namespace: namespace, folder: filepath.Join(c.folder, namespace)}
	nowhere := ""
	s.address.Store(&nowhere)
	return s, os.MkdirAll(s.folder, 0o755)
}

// watchAddress keeps the address of the Service, as clients that resolve its name do, until the context ends.
func (s *side) watchAddress(ctx context.Context) {
	for ctx.Err() == nil {
		s.readAddress(ctx)
		w, err := s.client.CoreV1().Services(s.namespace).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + ordinary.Name})
		if err != nil {
			time.Sleep(200 * time.Millisecond) // the API server is away; ends with ctx
			continue
		}
		for range w.ResultChan() {
			s.readAddress(ctx)
		}
	}
}

func (s *side) readAddress(ctx context.Context) {
	address := ""
	if svc, err := s.client.CoreV1().Services(s.namespace).Get(ctx, ordinary.Name, metav1.GetOptions{}); err == nil {
		address = fmt.Sprintf("%s:%d", svc.Spec.ClusterIP, svc.Spec.Ports[0].Port)
	}
	s.address.Store(&address)
}

// targetPorts returns the targetPorts of the application's Service as its owner stated them.
func (s *side) targetPorts(ctx context.Context) ([]string, error) {
	svc, err := s.client.CoreV1().Services(s.namespace).Get(ctx, ordinary.Name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	var record map[string]struct {
		Number int
		Name   string
	}
	if text := svc.Annotations["kubectl-sandbox.dev/target-ports"]; text != "" {
		if err := json.Unmarshal([]byte(text), &record); err != nil {
			return nil, err
		}
	}
	var stated []string
	for _, p := range svc.Spec.Ports {
		target := p.TargetPort.String()
		if r, ok := record[fmt.Sprintf("%s-%d", p.Protocol, p.Port)]; ok && r.Name == target {
			target = strconv.Itoa(r.Number)
		}
		stated = append(stated, target)
	}
	return stated, nil
}

func (s *side) kubectl(ctx context.Context, args ...string) error {
	_, err := s.run(ctx, "kubectl", append([]string{"-n", s.namespace}, args...)...)
	return err
}

func (s *side) release(manifests string) appliers.Release {
	return appliers.Release{Namespace: s.namespace, Name: ordinary.Name, Manifests: manifests, Folder: s.folder}
}

// settled waits until the workload's rollout is complete, if it has one to complete.
func (s *side) settled(ctx context.Context, after ordinary.State) error {
	if after.Paused {
		return nil
	}
	return s.until(ctx, 60*time.Second, workload+" is rolled out", func(ctx context.Context) (bool, error) {
		d, err := s.client.AppsV1().Deployments(s.namespace).Get(ctx, ordinary.Name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		n, st := *d.Spec.Replicas, d.Status
		return st.ObservedGeneration >= d.Generation && st.UpdatedReplicas == n && st.Replicas == n && st.AvailableReplicas == n, nil
	})
}

// perform does what the owner of an application does, not what users of the product do. Step is the number of the step, and
// before the state that the operation finds.
func (s *side) perform(ctx context.Context, o ordinary.Operation, step int, after ordinary.State) error {
	if way, ok := o.Applies(); ok {
		_, err := s.tools.Apply(ctx, way, s.release(after.Manifests()))
		return err
	}
	switch o.Kind {
	case ordinary.Helm3Rollback:
		_, err := s.tools.Rollback(ctx, appliers.Helm3, s.release(""))
		return err
	case ordinary.Helm4Rollback:
		_, err := s.tools.Rollback(ctx, appliers.Helm4, s.release(""))
		return err
	case ordinary.Edit:
		// The editor is a program that changes the level of logs.
		level := []string{"warn", "error", "info"}[step%3]
		_, err := s.runWith(ctx, []string{"KUBE_EDITOR=sed -i -E s/level=[a-z]+/level=" + level + "/"}, filepath.Join(s.programs, "kubectl"), "-n", s.namespace, "edit", workload)
		return err
	case ordinary.SetEnv:
		return s.kubectl(ctx, "set", "env", workload, "STEP="+strconv.Itoa(step))
	case ordinary.PatchService:
		return s.kubectl(ctx, "patch", "service/"+ordinary.Name, "--type=json",
			fmt.Sprintf(`--patch=[{"op":"replace","path":"/spec/ports/0/targetPort","value":%d}]`, after.PortNumber()))
	case ordinary.DeleteWorkload, ordinary.DeleteService:
		return s.makeAnew(ctx, o.Kind, after)
	case ordinary.DeletePods:
		return s.kubectl(ctx, "delete", "pods", "-l", selector, "--wait=false")
	case ordinary.Drain:
		return s.evictAll(ctx)
	case ordinary.AddAutoscaler:
		return s.kubectl(ctx, "autoscale", workload, "--min=2", "--max=3", "--cpu=80%")
	}
	args := map[ordinary.Kind][]string{
		ordinary.DropSecond:     {"delete", "service", ordinary.Name + "-too", "--ignore-not-found"},
		ordinary.Restart:        {"rollout", "restart", workload},
		ordinary.Pause:          {"rollout", "pause", workload},
		ordinary.Resume:         {"rollout", "resume", workload},
		ordinary.ScaleToZero:    {"scale", workload, "--replicas=0"},
		ordinary.ScaleUp:        {"scale", workload, "--replicas=" + strconv.Itoa(after.Replicas)},
		ordinary.DropAutoscaler: {"delete", "horizontalpodautoscaler", ordinary.Name},
	}[o.Kind]
	if args == nil {
		return fmt.Errorf("%s: the owner of an application does no such thing", o.Kind)
	}
	return s.kubectl(ctx, args...)
}

// makeAnew deletes an object and creates it from the manifests.
func (s *side) makeAnew(ctx context.Context, k ordinary.Kind, after ordinary.State) error {
	documents := strings.Split(after.Manifests(), "---\n")
	object, document := workload, documents[0]
	if k == ordinary.DeleteService {
		object, document = "service/"+ordinary.Name, documents[1]
	}
	file := filepath.Join(s.folder, "anew.yaml")
	if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
		return err
	}
	if err := s.kubectl(ctx, "delete", object); err != nil {
		return err
	}
	return s.kubectl(ctx, "create", "-f", file)
}

// evictAll evicts every pod of the namespace, as draining its node does: the node itself is everybody's.
func (s *side) evictAll(ctx context.Context) error {
	pods, err := s.client.CoreV1().Pods(s.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, p := range pods.Items {
		err := s.client.CoreV1().Pods(s.namespace).EvictV1(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: p.Name}})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// A revision is one that the Deployment can be rolled back to.
type revision struct {
	number   int64
	template corev1.PodTemplateSpec
}

func (s *side) revisions(ctx context.Context) ([]revision, error) {
	sets, err := s.client.AppsV1().ReplicaSets(s.namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, err
	}
	d, err := s.client.AppsV1().Deployments(s.namespace).Get(ctx, ordinary.Name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	sets.Items = slices.DeleteFunc(sets.Items, func(r appsv1.ReplicaSet) bool { return !metav1.IsControlledBy(&r, d) })
	var all []revision
	for _, r := range sets.Items {
		n, err := strconv.ParseInt(r.Annotations["deployment.kubernetes.io/revision"], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("replicaset %s: %w", r.Name, err)
		}
		all = append(all, revision{n, r.Spec.Template})
	}
	slices.SortFunc(all, func(a, b revision) int { return int(a.number - b.number) })
	return all, nil
}

// same says that two templates are one to the application's owner: the product adds labels, annotations and names of ports.
func (r revision) same(other revision) bool {
	a, b := r.template.Spec.Containers[0], other.template.Spec.Containers[0]
	release := func(t corev1.PodTemplateSpec) map[string]string {
		kept := maps.Clone(t.Annotations)
		maps.DeleteFunc(kept, func(k, _ string) bool { return strings.HasPrefix(k, "kubectl-sandbox.dev/") })
		return kept
	}
	return a.Image == b.Image && slices.Equal(a.Args, b.Args) && slices.Equal(a.Env, b.Env) && maps.Equal(release(r.template), release(other.template))
}

// undo rolls both sides back to the same template: to the choice-th that ours has, or the one before the newest.
func undo(ctx context.Context, ours, twin *side, choice int) (err, twinErr error) {
	all, err := ours.revisions(ctx)
	if err != nil || len(all) < 2 {
		return err, nil
	}
	to := all[len(all)-2]
	args := []string{"rollout", "undo", workload}
	if choice > 0 {
		to = all[min(choice, len(all)-1)-1]
		args = append(args, "--to-revision="+strconv.FormatInt(to.number, 10))
	}
	twins, twinErr := twin.revisions(ctx)
	if twinErr == nil && len(twins) > 0 && !to.same(twins[len(twins)-1]) {
		for _, r := range slices.Backward(twins) {
			if to.same(r) {
				twinErr = twin.kubectl(ctx, "rollout", "undo", workload, "--to-revision="+strconv.FormatInt(r.number, 10))
				break
			}
		}
	}
	return ours.kubectl(ctx, args...), twinErr
}
