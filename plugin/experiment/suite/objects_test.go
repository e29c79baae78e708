package suite

import (
	"encoding/json"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// What kustomize, Helm and kubectl print: objects beside Jobs, Lists, CronJobs, what was read from a cluster.
const suiteOfAll = `apiVersion: v1
kind: ConfigMap
metadata: {name: script, namespace: shop, labels: {app: e2e}}
data: {run.js: "1"}
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Secret
  metadata: {name: token, annotations: {kubectl.kubernetes.io/last-applied-configuration: '{"stringData":{"t":"geheim"}}'}}
  stringData: {t: geheim}
- apiVersion: v1
  kind: ServiceAccount
  metadata: {name: ci}
- apiVersion: batch/v1
  kind: CronJob
  metadata: {name: nightly-of-the-whole-shop-and-its-carts-and-more}
  spec: {schedule: "@daily", jobTemplate: {spec: {template: {spec: {containers: [{name: t, image: i}], restartPolicy: Never}}}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: out}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: batch/v1
kind: JobList
items:
- metadata:
    name: smoke.v2
    uid: 1-2-3
    resourceVersion: "7"
    labels: {batch.kubernetes.io/job-name: smoke, app: e2e}
  spec:
    selector: {matchLabels: {batch.kubernetes.io/controller-uid: 1-2-3}}
    template:
      metadata: {labels: {controller-uid: 1-2-3, batch.kubernetes.io/controller-uid: 1-2-3}}
      spec:
        serviceAccountName: ci
        imagePullSecrets: [{name: token}, {name: registry}]
        initContainers: [{name: w, image: i, envFrom: [{secretRef: {name: token}}]}]
        containers:
        - name: t
          image: i
          env:
          - {name: A, valueFrom: {configMapKeyRef: {name: script, key: a}}}
          - {name: B, valueFrom: {secretKeyRef: {name: token, key: t}}}
          - {name: C, valueFrom: {configMapKeyRef: {name: of-the-cluster, key: t}}}
          envFrom: [{configMapRef: {name: script}}]
        volumes:
        - {name: a, configMap: {name: script}}
        - {name: b, secret: {secretName: token}}
        - {name: c, persistentVolumeClaim: {claimName: out}}
        - {name: d, projected: {sources: [{configMap: {name: script}}, {secret: {name: token}}]}}
  status: {succeeded: 1}
---
apiVersion: batch/v1
kind: Job
metadata: {generateName: load-}
spec: {template: {spec: {containers: [{name: t, image: i}]}}}
`

func TestParse_ReadsWhatToolsPrint(t *testing.T) {
	s, err := Parse("all.yaml", []byte(suiteOfAll))
	if err != nil {
		t.Fatal(err)
	}
	var checks, objects []string
	for _, c := range s.Checks {
		checks = append(checks, c.Name+" of "+c.Source)
	}
	for _, o := range s.Objects {
		objects = append(objects, o.Kind+"/"+o.GetName())
	}
	if got, want := strings.Join(checks, ", "), "nightly-of-the-whole-shop-and-its-carts-and-more of all.yaml, document 2, item 3, "+
		"smoke.v2 of all.yaml, document 4, item 1, load of all.yaml, document 5"; got != want {
		t.Errorf("checks %s, want %s", got, want)
	}
	if got, want := strings.Join(objects, ", "), "ConfigMap/script, Secret/token, ServiceAccount/ci, PersistentVolumeClaim/out"; got != want {
		t.Errorf("objects %s, want %s", got, want)
	}
	smoke := s.Checks[1].Job
	if smoke.Spec.Selector != nil || len(smoke.Spec.Template.Labels) != 0 || len(smoke.Labels) != 1 {
		t.Errorf("what the cluster gave stays: %+v", smoke)
	}
}

func TestParse_RefusesWhatNoJobUses(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"an app", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: db}\n", `s.yaml, document 2: apiVersion, kind: "Deployment" of "apps/v1" is neither a check`},
		{"rights", "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: ci}\n", "apply it before the test, and leave it out of the suite"},
		{"within a List", "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Service}]\n", `s.yaml, document 2, item 1: apiVersion, kind: "Service" of "v1"`},
		{"a typo", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndate: {a: b}\n", `s.yaml, document 2: unknown field "date"`},
		{"no name", "apiVersion: v1\nkind: ConfigMap\ndata: {a: b}\n", "s.yaml, document 2: metadata.name: must be set"},
		{"twice", "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: a}\n",
			`s.yaml, document 3: metadata.name: there is a Secret "a" already, in s.yaml, document 2`},
		{"a token", "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ntype: kubernetes.io/service-account-token\n", "leave the Secret out"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Parse("s.yaml", []byte(job("", "")+"---\n"+tt.in)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// Each experiment has objects of its own, and its Jobs use these.
func TestPlace(t *testing.T) {
	s, err := Parse("all.yaml", []byte(suiteOfAll))
	if err != nil {
		t.Fatal(err)
	}
	run := &Run{ID: "r1", Namespace: "shop", UID: types.UID("u"), Objects: s.Objects}
	want := map[string]string{"ConfigMap": "script-r1", "Secret": "token-r1", "ServiceAccount": "ci", "PersistentVolumeClaim": "out-r1"}
	for _, o := range Place(run, s.Objects) {
		owners := o.GetOwnerReferences()
		if o.GetName() != want[o.Kind] || o.GetNamespace() != "shop" || o.GetLabels()[sandbox.LabelRun] != "r1" || len(owners) != 1 || owners[0].UID != "u" {
			t.Errorf("%s: got %s of %s, %v, %v", o.Kind, o.GetName(), o.GetNamespace(), o.GetLabels(), owners)
		}
	}
	if s.Objects[0].GetName() != "script" || s.Objects[0].GetLabels()[sandbox.LabelRun] != "" {
		t.Error("the suite itself has changed")
	}
	pod := Job(run, &Variant{Name: "a", Sandbox: "a", Key: "k"}, &s.Checks[1], nil).Spec.Template.Spec
	text, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]int{`"script-r1"`: 4, `"token-r1"`: 5, `"out-r1"`: 1, `"ci"`: 1, `"registry"`: 1, `"of-the-cluster"`: 1, `"script"`: 0, `"token"`: 0, `"out"`: 0} {
		if got := strings.Count(string(text), name); got != n {
			t.Errorf("%s is named %d times, want %d: %s", name, got, n, text)
		}
	}
}

// What another client reads of a suite is the same, but for what nobody else may read.
func TestSuite_TextHoldsNoSecret(t *testing.T) {
	s, err := Parse("all.yaml", []byte(suiteOfAll))
	if err != nil {
		t.Fatal(err)
	}
	cron, err := FromCronJob(&batchv1.CronJob{
		ObjectMeta: metav1.ObjectMeta{Name: "weekly"},
		Spec: batchv1.CronJobSpec{JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "t", Image: "i"}}},
		}}}},
	})
	if err == nil {
		err = s.Join(&Suite{Checks: []Check{cron}})
	}
	if err != nil {
		t.Fatal(err)
	}
	text, err := s.Text()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text, "geheim") {
		t.Errorf("it holds a Secret's data:\n%s", text)
	}
	again, err := Parse("again.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	if len(again.Checks) != 4 || len(again.Objects) != 4 {
		t.Fatalf("got %+v", again)
	}
	for i, c := range again.Checks {
		of := func(c *Check) string {
			b, err := json.Marshal([]any{c.Name, c.Kind, c.Required, c.Timeout, c.Job.Spec, c.Job.Annotations, c.Job.Labels})
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		if got, want := of(&c), of(&s.Checks[i]); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
