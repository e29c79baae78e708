package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A persona acts with the rights of somebody.
type persona struct {
	*space
	user   string
	groups []string
	client dynamic.Interface
}

// A deed is a thing to do as somebody; it changes nothing, but is judged as if it did.
type deed func(p *persona) error

// kubectlSandbox runs the plugin.
func kubectlSandbox(args ...string) deed {
	return func(p *persona) error {
		args := append(slices.Clone(args), "--as="+p.user)
		for _, g := range p.groups {
			args = append(args, "--as-group="+g)
		}
		if r := p.trySandbox(args...); r.err != nil {
			return fmt.Errorf("%w: %s", r.err, strings.TrimSpace(r.stderr))
		}
		return nil
	}
}

func create(group, resource string, o runtime.Object) deed {
	return func(p *persona) error {
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
		if err != nil {
			return err
		}
		_, err = p.resource(group, resource).Create(p.t.Context(), &unstructured.Unstructured{Object: content}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
}

// patched lays a merge patch on an object or a part of it (RESOURCE/PART).
func patched(group, resource, name, patch string) deed {
	return func(p *persona) error {
		resource, part, _ := strings.Cut(resource, "/")
		var parts []string
		if part != "" {
			parts = append(parts, part)
		}
		_, err := p.resource(group, resource).Patch(p.t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}}, parts...)
		return err
	}
}

func remove(group, resource, name string) deed {
	return func(p *persona) error {
		return p.resource(group, resource).Delete(p.t.Context(), name, metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}})
	}
}

func (p *persona) resource(group, resource string) dynamic.ResourceInterface {
	return p.client.Resource(schema.GroupVersionResource{Group: group, Version: "v1", Resource: resource}).Namespace(p.name)
}

// meta is that of an object with a role of ours.
func meta(kind, name, role string) (metav1.TypeMeta, metav1.ObjectMeta) {
	version := map[string]string{"Deployment": "apps/v1", "DaemonSet": "apps/v1", "StatefulSet": "apps/v1", "ReplicaSet": "apps/v1",
		"Job": "batch/v1", "CronJob": "batch/v1", "NetworkPolicy": "networking.k8s.io/v1"}[kind]
	if version == "" {
		version = "v1"
	}
	m := metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}, Annotations: map[string]string{}}
	if role != "" {
		m.Labels[sandbox.LabelRole] = role
		m.Annotations[sandbox.AnnotationKey] = "key-2"
	}
	if role == sandbox.RoleFork || role == sandbox.RoleSandbox || role == sandbox.RoleCheck {
		m.Labels[sandbox.LabelSandbox] = "pr-2"
	}
	return metav1.TypeMeta{APIVersion: version, Kind: kind}, m
}

// template is a pod template with a role of ours.
func template(role string) corev1.PodTemplateSpec {
	_, m := meta("Pod", "", role)
	m.Labels["app"] = "forged"
	spec := podinfoPod()
	spec.RestartPolicy = corev1.RestartPolicyAlways
	return corev1.PodTemplateSpec{ObjectMeta: m, Spec: spec}
}

func oneOff(role string) batchv1.JobSpec {
	t := template(role)
	t.Spec.RestartPolicy = corev1.RestartPolicyNever
	return batchv1.JobSpec{Template: t}
}

// deeds are the rows of the table, by their first column.
func deeds() map[string]deed {
	forged := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "forged"}}
	pod := func(role string) *corev1.Pod {
		k, m := meta("Pod", "forged", role)
		return &corev1.Pod{TypeMeta: k, ObjectMeta: m, Spec: podinfoPod()}
	}
	configMap := func(role string) *corev1.ConfigMap {
		k, m := meta("ConfigMap", "sandbox-pr-2", role)
		return &corev1.ConfigMap{TypeMeta: k, ObjectMeta: m, Data: map[string]string{sandbox.DataKey: "key-2"}}
	}
	policy := func(role string) *networkingv1.NetworkPolicy {
		k, m := meta("NetworkPolicy", "forged", role)
		return &networkingv1.NetworkPolicy{TypeMeta: k, ObjectMeta: m, Spec: networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{"Ingress"}}}
	}
	fork := func(kind string) (metav1.TypeMeta, metav1.ObjectMeta) { return meta(kind, "forged", "") }
	k, m := fork("DaemonSet")
	daemonSet := &appsv1.DaemonSet{TypeMeta: k, ObjectMeta: m, Spec: appsv1.DaemonSetSpec{Selector: forged, Template: template(sandbox.RoleFork)}}
	k, m = fork("StatefulSet")
	statefulSet := &appsv1.StatefulSet{TypeMeta: k, ObjectMeta: m, Spec: appsv1.StatefulSetSpec{Selector: forged, Template: template(sandbox.RoleFork)}}
	k, m = fork("ReplicaSet")
	replicaSet := &appsv1.ReplicaSet{TypeMeta: k, ObjectMeta: m, Spec: appsv1.ReplicaSetSpec{Selector: forged, Template: template(sandbox.RoleFork)}}
	k, m = fork("ReplicationController")
	controller := &corev1.ReplicationController{TypeMeta: k, ObjectMeta: m, Spec: corev1.ReplicationControllerSpec{Selector: forged.MatchLabels, Template: ptr(template(sandbox.RoleFork))}}
	k, m = fork("Job")
	job := &batchv1.Job{TypeMeta: k, ObjectMeta: m, Spec: oneOff(sandbox.RoleFork)}
	check := &batchv1.Job{TypeMeta: k, ObjectMeta: m, Spec: oneOff(sandbox.RoleCheck)}
	k, m = fork("CronJob")
	cronJob := &batchv1.CronJob{TypeMeta: k, ObjectMeta: m, Spec: batchv1.CronJobSpec{Schedule: "0 0 1 1 *", JobTemplate: batchv1.JobTemplateSpec{Spec: oneOff(sandbox.RoleFork)}}}
	k, m = meta("Deployment", "forged", sandbox.RoleFork)
	deployment := &appsv1.Deployment{TypeMeta: k, ObjectMeta: m, Spec: appsv1.DeploymentSpec{Selector: forged, Template: template(sandbox.RoleFork)}}

	labels := func(pairs string) string { return `{"metadata":{"labels":{` + pairs + `}}}` }
	const (
		asFork     = `"kubectl-sandbox.dev/role":"fork","kubectl-sandbox.dev/sandbox":"pr-1"`
		asBaseline = `"kubectl-sandbox.dev/role":"baseline","kubectl-sandbox.dev/workload":"deployment.plain"`
		unmarked   = `"kubectl-sandbox.dev/role":null,"kubectl-sandbox.dev/workload":null,"kubectl-sandbox.dev/sandbox":null`
		newKey     = `{"metadata":{"annotations":{"kubectl-sandbox.dev/key":"key-3"}}}`
		newImage   = `{"spec":{"template":{"spec":{"terminationGracePeriodSeconds":7}}}}`
		more       = `{"spec":{"replicas":3}}`
	)
	ofTemplate := func(patch string) string { return `{"spec":{"template":` + patch + `}}` }
	return map[string]deed{
		"`kubectl sandbox fork deploy/api`":    kubectlSandbox("fork", "deploy/api", "--name=pr-2", "--image="+apps.Podinfo(2), "--dry-run=server"),
		"`kubectl sandbox route deploy/plain`": kubectlSandbox("route", "deploy/plain", "--dry-run=server"),
		"`kubectl sandbox extend pr-1`":        kubectlSandbox("extend", "pr-1", "--ttl=9h", "--dry-run=server"),
		"`kubectl sandbox delete pr-1`":        kubectlSandbox("delete", "pr-1", "--dry-run=server"),
		"`kubectl sandbox list`":               kubectlSandbox("list"),

		"make a sandbox's ConfigMap":             create("", "configmaps", configMap(sandbox.RoleSandbox)),
		"make an ordinary ConfigMap a sandbox's": patched("", "configmaps", "sandbox-pr-3", labels(`"kubectl-sandbox.dev/role":"sandbox","kubectl-sandbox.dev/sandbox":"pr-3"`)),
		"make an ordinary ConfigMap":             create("", "configmaps", configMap("")),
		"change when a sandbox expires":          patched("", "configmaps", "sandbox-pr-1", `{"data":{"expires":"2199-01-01T00:00:00Z"}}`),
		"change the key of a sandbox":            patched("", "configmaps", "sandbox-pr-1", `{"data":{"key":"key-3"}}`),
		"change who made a sandbox":              patched("", "configmaps", "sandbox-pr-1", `{"data":{"created-by":"somebody"}}`),
		"take the marks off a sandbox":           patched("", "configmaps", "sandbox-pr-1", labels(unmarked)),
		"ask for fresh counts":                   patched("", "configmaps", "sandbox-pr-1", `{"metadata":{"annotations":{"kubectl-sandbox.dev/flush":"now"}}}`),
		"label a sandbox's ConfigMap otherwise":  patched("", "configmaps", "sandbox-pr-1", labels(`"team":"checkout"`)),
		"delete a sandbox's ConfigMap":           remove("", "configmaps", "sandbox-pr-1"),

		"make a share":                    create("", "configmaps", configMap(sandbox.RoleShare)),
		"change when a share expires":     patched("", "configmaps", "share-1", `{"data":{"expires":"2199-01-01T00:00:00Z"}}`),
		"change the hash of a share":      patched("", "configmaps", "share-1", `{"data":{"hash":"0"}}`),
		"take the marks off a share":      patched("", "configmaps", "share-1", labels(unmarked)),
		"delete a share":                  remove("", "configmaps", "share-1"),
		"make an experiment's ConfigMap":  create("", "configmaps", configMap(sandbox.RoleRun)),
		"change what an experiment found": patched("", "configmaps", "run-1", `{"data":{"checks":"passed"}}`),

		"make a fork's Deployment":                             create("apps", "deployments", deployment),
		"change the key on a fork":                             patched("apps", "deployments", "api-pr-1", newKey),
		"change the key on a fork, by its status":              patched("apps", "deployments/status", "api-pr-1", newKey),
		"change the image of a fork":                           patched("apps", "deployments", "api-pr-1", newImage),
		"scale a fork":                                         patched("apps", "deployments", "api-pr-1", more),
		"take the marks off a fork":                            patched("apps", "deployments", "api-pr-1", labels(unmarked)),
		"make a fork a baseline as well":                       patched("apps", "deployments", "api-pr-1", labels(`"kubectl-sandbox.dev/role":"baseline"`)),
		"delete a fork":                                        remove("apps", "deployments", "api-pr-1"),
		"make a pod that passes for a fork's":                  create("", "pods", pod(sandbox.RoleFork)),
		"label a running pod as a fork's":                      patched("", "pods", "bystander", labels(asFork)),
		"label a running pod as a fork's, by its status":       patched("", "pods/status", "bystander", labels(asFork)),
		"make a NetworkPolicy of a sandbox":                    create("networking.k8s.io", "networkpolicies", policy(sandbox.RoleFork)),
		"a DaemonSet whose pods pass for a fork's":             create("apps", "daemonsets", daemonSet),
		"a StatefulSet whose pods pass for a fork's":           create("apps", "statefulsets", statefulSet),
		"a ReplicaSet whose pods pass for a fork's":            create("apps", "replicasets", replicaSet),
		"a ReplicationController whose pods pass for a fork's": create("", "replicationcontrollers", controller),
		"a Job whose pods pass for a fork's":                   create("batch", "jobs", job),
		"a Job whose pods are checks":                          create("batch", "jobs", check),
		"a CronJob whose pods pass for a fork's":               create("batch", "cronjobs", cronJob),

		"mark the pods of a Deployment as a baseline's": patched("apps", "deployments", "plain", ofTemplate(labels(asBaseline))),
		"make a pod that passes for a baseline's":       create("", "pods", pod(sandbox.RoleBaseline)),
		"label a running pod as a baseline's":           patched("", "pods", "bystander", labels(asBaseline)),
		"write other ports on a routed Deployment":      patched("apps", "deployments", "api", ofTemplate(`{"metadata":{"annotations":{"kubectl-sandbox.dev/ports":"web=1"}}}`)),
		"change the image of a routed Deployment":       patched("apps", "deployments", "api", newImage),
		"scale a routed Deployment":                     patched("apps", "deployments", "api", more),
		"take the marks off a routed Deployment":        patched("apps", "deployments", "api", ofTemplate(labels(unmarked))),
		"keep outgoing requests of forks unstamped":     patched("apps", "deployments", "plain", ofTemplate(`{"metadata":{"annotations":{"kubectl-sandbox.dev/outgoing":"off"}}}`)),
		"mark a Service as switched":                    patched("", "services", "plain", labels(`"kubectl-sandbox.dev/role":"service"`)),
		"take the marks off a switched Service":         patched("", "services", "api", labels(`"kubectl-sandbox.dev/role":null`)),
		"make a NetworkPolicy of a route":               create("networking.k8s.io", "networkpolicies", policy(sandbox.RoleRoute)),
	}
}

// personas returns who the table's columns are of.
func (s *space) personas() map[string]*persona {
	s.t.Helper()
	all := map[string]*persona{}
	add := func(name, user string, groups ...string) {
		config := rest.CopyConfig(s.config)
		config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: append(groups, "system:authenticated")}
		all[name] = &persona{s, user, config.Impersonate.Groups, must[dynamic.Interface](s.t)(dynamicFor(config))}
	}
	add("cluster-admin", "root@example.test", "system:masters")
	for name, role := range map[string]string{"admin": "admin", "editor": "edit", "pipeline": "sandbox-user", "viewer": "view"} {
		s.grant(role, name)
		add(name, name+"@example.test")
	}
	write := []string{"get", "list", "watch", "create", "update", "patch", "delete"}
	_, err := s.world.client.RbacV1().Roles(s.name).Create(s.t.Context(), &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "deployer"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"configmaps", "pods", "pods/status", "replicationcontrollers", "services"}, Verbs: write},
		{APIGroups: []string{"apps"}, Resources: []string{"daemonsets", "deployments", "deployments/status", "replicasets", "statefulsets"}, Verbs: write},
		{APIGroups: []string{"batch"}, Resources: []string{"cronjobs", "jobs"}, Verbs: write},
		{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"networkpolicies"}, Verbs: write},
	}}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = s.world.client.RbacV1().RoleBindings(s.name).Create(s.t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "deployer"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "deployer"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "deployer@example.test"},
			{Kind: rbacv1.ServiceAccountKind, Namespace: s.name, Name: "controller"}},
	}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	add("deployer", "deployer@example.test")
	add("controller", "system:serviceaccount:"+s.name+":controller", "system:serviceaccounts")
	add("webhook", "system:serviceaccount:"+s.release+":sandbox-webhook", "system:serviceaccounts")
	return all
}

func dynamicFor(c *rest.Config) (dynamic.Interface, error) { return dynamic.NewForConfig(c) }

// A row of the table is what is done, and who may.
type row struct {
	what string
	may  map[string]bool
}

// rightsTable reads the table of testdata/rights.md: the one whose first column is called "what".
func rightsTable(t *testing.T) (who []string, rows []row) {
	t.Helper()
	content, err := os.ReadFile("testdata/rights.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(content)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case len(cells) < 2 || strings.HasPrefix(cells[0], "---") || who == nil && cells[0] != "what":
		case who == nil:
			who = cells[1:]
		case strings.HasPrefix(cells[0], "**"): // a heading
		case len(cells) != len(who)+1:
			t.Fatalf("%q has %d cells, want %d", cells[0], len(cells), len(who)+1)
		default:
			r := row{cells[0], map[string]bool{}}
			for i, cell := range cells[1:] {
				if cell != "yes" && cell != "no" {
					t.Fatalf("%q of %s is %q, neither yes nor no", r.what, who[i], cell)
				}
				r.may[who[i]] = cell == "yes"
			}
			rows = append(rows, r)
		}
	}
	return who, rows
}

func TestRights_AreAsWrittenDown(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(podinfo("api", 1), podinfoService("api"), podinfo("plain", 0), podinfoService("plain"),
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "bystander", Labels: app("bystander")}, Spec: podinfoPod()},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "sandbox-pr-3"}, Data: map[string]string{sandbox.DataKey: "key-3"}},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "share-1", Labels: map[string]string{sandbox.LabelRole: sandbox.RoleShare, sandbox.LabelSandbox: "pr-1"}}},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "run-1", Labels: map[string]string{sandbox.LabelRole: sandbox.RoleRun}}})
	s.available("api")
	s.sandbox("route", "deploy/api")
	s.sandbox("fork", "deploy/api", "--name=pr-1", "--key=key-1", "--image="+apps.Podinfo(1))

	people, all := s.personas(), deeds()
	who, rows := rightsTable(t)
	if got := slices.Sorted(maps.Keys(people)); !slices.Equal(got, slices.Sorted(slices.Values(who))) {
		t.Fatalf("the table is of %v, this test of %v", who, got)
	}
	var written []string
	judged := 0
	for _, r := range rows {
		written = append(written, r.what)
		do, ok := all[r.what]
		if !ok {
			t.Errorf("%q: this test does not do that", r.what)
			continue
		}
		for _, name := range who {
			judged++
			err := do(people[name])
			switch {
			case (err == nil) != r.may[name]:
				t.Errorf("%s: %s: %v, written down: %t", name, r.what, err, r.may[name])
			case err != nil && !lacksRight(err):
				t.Errorf("%s: %s: fails for another reason: %v", name, r.what, err)
			}
		}
	}
	slices.Sort(written)
	for _, what := range slices.Sorted(maps.Keys(all)) {
		if _, found := slices.BinarySearch(written, what); !found {
			t.Errorf("%q is not written down", what)
		}
	}
	t.Logf("%d of %d rights judged", judged, len(rows)*len(who))
}

// lacksRight says whether an error is that of a right somebody lacks, or of a mark that nobody may change.
func lacksRight(err error) bool {
	return apierrors.IsForbidden(err) || strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'sandbox-marks-") ||
		strings.Contains(err.Error(), "not allowed")
}

// A controller that copies marked templates is let do so by a chart value, and by nothing else.
func TestRights_OfAControllerAreByChartValue(t *testing.T) {
	s := newSpace(t)
	controller := s.personas()["controller"]
	copies := deeds()["a ReplicaSet whose pods pass for a fork's"]
	if err := copies(controller); !lacksRight(err) {
		t.Errorf("before: %v", err)
	}
	values := s.values()
	t.Cleanup(func() {
		s.helm("upgrade", s.helmRelease(), s.chart(), "--values="+values, "--wait", "--timeout=90s")
	})
	s.helm("upgrade", s.helmRelease(), s.chart(), "--values="+values, "--set=marks.controllers={"+controller.user+"}", "--wait", "--timeout=90s")
	eventually(t, settle*5, "the API server knows", func(context.Context) error { return copies(controller) })
}
