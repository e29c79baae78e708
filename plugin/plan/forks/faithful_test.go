package forks_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork/env"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// podOf returns the fork's pod template.
func podOf(t *testing.T, d *unstructured.Unstructured) *corev1.PodTemplateSpec {
	t.Helper()
	template, _, _ := unstructured.NestedMap(d.Object, "spec", "template")
	var pod corev1.PodTemplateSpec
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(template, &pod); err != nil {
		t.Fatal(err)
	}
	return &pod
}

func forked(t *testing.T, in forkInput, o forks.Options) *forks.Plan {
	t.Helper()
	p, err := forks.New(&o, in.workloads, in.state)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// again has the fork of a plan be there.
func (in *forkInput) again(p *forks.Plan) {
	cm := p.ConfigMap.DeepCopy()
	cm.UID = "c"
	d := *p.Forks[0].Deployment.DeepCopy()
	d.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: cm.Name, UID: cm.UID}})
	in.state.Sandbox, in.state.Forks = cm, []unstructured.Unstructured{d}
}

// variablesOf are those of the container that the cases of --env change.
const variablesOf = `containers: [{name: api, image: "api:1", args: ["--own=$(OWN)", "--new=$(NEW)"], envFrom: [{configMapRef: {name: cm}}], env: [` +
	`{name: EARLY, value: "$(LATE)"}, {name: OWN, value: own}, {name: URL_OWN, value: "http://$(OWN)/"}, {name: URL_CM, value: "http://$(CM)/"}, {name: URL_NEW, value: "http://$(NEW)/"}, ` +
	`{name: TWICE, value: one}, {name: URL_TWICE, value: "http://$(TWICE)/"}, {name: TWICE, value: two}, {name: LATE, value: late}]}]`

func TestForks_EnvReachesWhatRefersToIt(t *testing.T) {
	known := forks.EnvSources{"configmap/cm": {Data: map[string]string{"CM": "cm"}}}
	for _, tt := range []struct {
		name  string
		env   []string
		want  map[string]string
		args  []string
		warns []string
	}{
		{"nothing", nil, map[string]string{"URL_OWN": "http://own/", "URL_CM": "http://cm/", "URL_NEW": "http://$(NEW)/", "URL_TWICE": "http://one/", "TWICE": "two", "EARLY": "$(LATE)"}, []string{"--own=own", "--new=$(NEW)"}, nil},
		{"one that it has", []string{"OWN=x"}, map[string]string{"URL_OWN": "http://x/"}, []string{"--own=x", "--new=$(NEW)"}, nil},
		{"one by envFrom", []string{"CM=x"}, map[string]string{"URL_CM": "http://x/", "CM": "x"}, nil, nil},
		{"a new one", []string{"NEW=x"}, map[string]string{"URL_NEW": "http://x/", "NEW": "x"}, []string{"--own=own", "--new=x"}, nil},
		{"one that stands after what refers to it", []string{"LATE=x"}, map[string]string{"EARLY": "x", "LATE": "x"}, nil, nil},
		{"one that it has twice", []string{"TWICE=x"}, map[string]string{"URL_TWICE": "http://x/", "TWICE": "x"}, nil, nil},
		{"several, one of the other", []string{"NEW=$(BASE)1", "BASE=b"}, map[string]string{"URL_NEW": "http://b1/", "BASE": "b"}, []string{"--own=own", "--new=b1"}, nil},
		{"one of what stands later", []string{"NEW=$(LATE)"}, map[string]string{"URL_NEW": "http://$(LATE)/"}, nil, []string{"container api sets LATE after it, so it keeps the text $(LATE)"}},
		{"from a Secret", []string{"OWN@secret/s/k"}, map[string]string{"URL_OWN": "http://secret/"}, nil, nil},
		{"removed", []string{"OWN-"}, map[string]string{"URL_OWN": "http://$(OWN)/", "OWN": "-"}, nil, []string{"--env OWN-: variable URL_OWN and args of container api refers to it"}},
		{"removed, of what it has twice", []string{"TWICE-"}, map[string]string{"TWICE": "-"}, nil, nil},
		{"removed by envFrom", []string{"CM-"}, map[string]string{"CM": "cm"}, nil, []string{"--env CM-: it comes from configmap/cm by envFrom"}},
		{"removed, and not there", []string{"NONE-"}, nil, nil, []string{"--env NONE-: no container sets it"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := (&workloadShape{spec: variablesOf}).input(t)
			in.state.EnvFrom = known
			p := forked(t, in, with(options(), func(o *forks.Options) { o.Env = variables(tt.env...) }))
			check := func(p *forks.Plan) {
				c := podOf(t, p.Forks[0].Deployment).Spec.Containers[0]
				e := env.Resolve(&c, env.Sources{
					ConfigMap: func(name string) (env.Object, bool) { return known["configmap/"+name], true },
					Secret:    func(string) (env.Object, bool) { return env.Object{Data: map[string]string{"k": "secret"}}, true },
				})
				for name, want := range tt.want {
					v, ok := e.Lookup(name)
					if !ok {
						v.Value = "-"
					}
					if v.Value != want {
						t.Errorf("%s is %q, want %q", name, v.Value, want)
					}
				}
				for i := range tt.args {
					if got, _ := e.Expand(c.Args[i]); got != tt.args[i] {
						t.Errorf("the argument is %q, want %q", got, tt.args[i])
					}
				}
			}
			check(p)
			warns := slices.DeleteFunc(slices.Clone(p.Warnings), func(w string) bool { return strings.Contains(w, noService) })
			if len(warns) != len(tt.warns) || len(warns) > 0 && !strings.Contains(warns[0], tt.warns[0]) {
				t.Errorf("it warns %q, want %q", warns, tt.warns)
			}

			// On a baseline that changed as well, and rebased, it means the same.
			in.again(p)
			containers, _, _ := unstructured.NestedSlice(in.workloads[0].Object.Object, "spec", "template", "spec", "containers")
			c := containers[0].(map[string]any)
			c["env"] = append([]any{map[string]any{"name": "FIRST", "value": "1"}}, append(c["env"].([]any), map[string]any{"name": "LAST", "value": "2"})...)
			if err := unstructured.SetNestedSlice(in.workloads[0].Object.Object, containers, "spec", "template", "spec", "containers"); err != nil {
				t.Fatal(err)
			}
			o := options()
			rebased, err := forks.Rebase(&o, in.workloads, in.state)
			if err != nil {
				t.Fatal(err)
			}
			check(rebased)
			e := podOf(t, rebased.Forks[0].Deployment).Spec.Containers[0].Env
			for _, name := range []string{"FIRST", "LAST"} {
				if !slices.ContainsFunc(e, func(v corev1.EnvVar) bool { return v.Name == name }) {
					t.Errorf("rebased, it lacks %s: %v", name, e)
				}
			}
			if !rebased.Forks[0].Rebased {
				t.Error("it was not behind")
			}
		})
	}
}

// A webhook returns one that is asked for pods which the object selector selects.
func webhook(t *testing.T, name, objectSelector, condition string) admissionv1.MutatingWebhook {
	t.Helper()
	w := admissionv1.MutatingWebhook{Name: name, Rules: []admissionv1.RuleWithOperations{{
		Operations: []admissionv1.OperationType{admissionv1.Create},
		Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
	}}}
	if objectSelector != "" {
		w.ObjectSelector = ptr(selector(t, objectSelector))
	}
	if condition != "" {
		w.MatchConditions = []admissionv1.MatchCondition{{Name: "c", Expression: condition}}
	}
	return w
}

func selector(t *testing.T, text string) (s metav1.LabelSelector) {
	t.Helper()
	b, _ := json.Marshal(parse(t, text))
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestForks_KeepWhatAdmissionGoesBy(t *testing.T) {
	const meta = `labels: {app: api, team: shop, sidecar.istio.io/inject: "true", example.com/profile: gold}`
	policy := func(s string) func(*forks.State) {
		return func(state *forks.State) {
			state.Policies.Policies = []networkingv1.NetworkPolicy{{ObjectMeta: metav1.ObjectMeta{Name: "n", Namespace: "shop"}, Spec: networkingv1.NetworkPolicySpec{
				PodSelector: selector(t, s), PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}}}}
		}
	}
	hook := func(s, condition string) func(*forks.State) {
		return func(state *forks.State) {
			state.Admission.Webhooks = []admissionv1.MutatingWebhook{webhook(t, "hook.example.com", s, condition)}
		}
	}
	const istio = "sidecar.istio.io/inject"
	for _, tt := range []struct {
		name   string
		state  []func(*forks.State)
		beside string
		args   []string
		keeps  []string
		warns  string
	}{
		{name: "a well-known label", keeps: []string{istio}},
		{name: "one that a webhook selects by", state: []func(*forks.State){hook(`matchLabels: {example.com/profile: gold}`, "")}, keeps: []string{"example.com/profile", istio}},
		{name: "one by whose absence a webhook selects", state: []func(*forks.State){hook(`matchExpressions: [{key: example.com/profile, operator: DoesNotExist}]`, "")}, keeps: []string{"example.com/profile", istio}},
		{name: "one that makes no difference", state: []func(*forks.State){hook(`matchExpressions: [{key: example.com/profile, operator: NotIn, values: [iron]}]`, "")}, keeps: []string{istio}},
		{name: "one of two that a webhook selects by", state: []func(*forks.State){hook(`matchLabels: {example.com/profile: gold, app: other}`, "")}, keeps: []string{istio}},
		{name: "one in a condition", state: []func(*forks.State){hook("", `object.metadata.labels["example.com/profile"] == "gold"`)}, keeps: []string{"example.com/profile", istio}},
		{name: "a webhook of another namespace", state: []func(*forks.State){hook(`matchLabels: {example.com/profile: gold}`, ""), func(s *forks.State) {
			s.Admission.Webhooks[0].NamespaceSelector = ptr(selector(t, `matchLabels: {mesh: "on"}`))
			s.Policies.NamespaceLabels = map[string]string{"kubernetes.io/metadata.name": "shop"}
		}}, keeps: []string{istio}},
		{name: "a webhook of Deployments", state: []func(*forks.State){hook(`matchLabels: {example.com/profile: gold}`, ""), func(s *forks.State) {
			s.Admission.Webhooks[0].Rules[0].Resources = []string{"deployments"}
		}}, keeps: []string{istio}},
		{name: "asked not to", args: []string{istio + "-"}},
		{name: "one that the baseline's own selector selects by", state: []func(*forks.State){hook(`matchLabels: {app: api}`, "")}, keeps: []string{istio},
			warns: "lack the label app, by which hook.example.com chooses the pods that it changes: deployment.apps/api selects by it as well; so a fork can't have it"},
		{name: "one that a Service selects by", beside: `{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {selector: {sidecar.istio.io/inject: "true"}, ports: [{port: 80}]}}`,
			warns: "lack the label sidecar.istio.io/inject, by which admission chooses the pods that it changes: service/s selects by it as well; so a fork can't have it"},
		{name: "one that a disruption budget selects by", beside: `{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: b}, spec: {selector: {matchLabels: {sidecar.istio.io/inject: "true"}}}}`,
			warns: "poddisruptionbudget.policy/b selects by it as well"},
		{name: "one that a NetworkPolicy selects by", state: []func(*forks.State){policy(`matchLabels: {sidecar.istio.io/inject: "true"}`)},
			warns: "networkpolicy/n selects by it as well; --keep-label=sidecar.istio.io/inject keeps it anyway"},
		{name: "one that a PodMonitor selects by", beside: `{apiVersion: monitoring.coreos.com/v1, kind: PodMonitor, metadata: {name: m}, spec: {selector: {matchLabels: {sidecar.istio.io/inject: "true"}}}}`,
			warns: "podmonitor.monitoring.coreos.com/m selects by it as well; --keep-label=sidecar.istio.io/inject"},
		{name: "one by which something selects with another", beside: `{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: b}, spec: {selector: {matchLabels: {app: api, sidecar.istio.io/inject: "true"}}}}`, keeps: []string{istio}},
		{name: "what may not be read", state: []func(*forks.State){func(s *forks.State) { s.Admission.Unread = true }}, keeps: []string{istio},
			warns: "lack the labels example.com/profile; whether admission webhooks read them is unknown, as you may not list mutatingwebhookconfigurations; --keep-label=example.com/profile keeps one"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := (&workloadShape{spec: oneContainer, meta: meta, beside: tt.beside}).input(t)
			for _, change := range tt.state {
				change(in.state)
			}
			o := options("pr:1")
			for _, a := range tt.args {
				c, err := forks.ParseKeepLabel(a)
				if err != nil {
					t.Fatal(err)
				}
				o.KeepLabels = append(o.KeepLabels, c)
			}
			o.Replicas, o.Route = ptr(int64(0)), true // nothing is said of the missing Service, nor of missing routers
			p := forked(t, in, o)
			check := func(p *forks.Plan) {
				t.Helper()
				if kept := fork.Kept(p.Forks[0].Deployment); !slices.Equal(kept, tt.keeps) {
					t.Errorf("it keeps %v, want %v", kept, tt.keeps)
				}
			}
			check(p)
			if len(tt.keeps) > 0 && !strings.Contains(p.Forks[0].Inherits, strings.Join(tt.keeps, ", ")) {
				t.Errorf("it inherits: %s", p.Forks[0].Inherits)
			}
			warns := strings.Join(p.Warnings, "\n")
			if (warns == "") != (tt.warns == "") || !strings.Contains(warns, tt.warns) {
				t.Errorf("it warns\n%s\nwant\n%s", warns, tt.warns)
			}
			in.again(p)
			rebase := with(options(), func(o *forks.Options) { o.Route = true })
			rebased, err := forks.Rebase(&rebase, in.workloads, in.state)
			if err != nil {
				t.Fatal(err)
			}
			check(rebased)
			if rebased.Forks[0].Rebased || !reflect.DeepEqual(rebased.Forks[0].Deployment.Object, in.state.Forks[0].Object) {
				t.Errorf("rebased on the same it is\n%s\nand was\n%s", asYAML(t, rebased.Forks[0].Deployment.Object), asYAML(t, in.state.Forks[0].Object))
			}
		})
	}
}

// A label that is kept later on does not make a fork look behind its baseline.
func TestForks_AKeptLabelIsNoNewBaseline(t *testing.T) {
	in := (&workloadShape{spec: oneContainer}).input(t)
	in.again(forked(t, in, options("pr:1")))
	keep, err := forks.ParseKeepLabel("team")
	if err != nil {
		t.Fatal(err)
	}
	p := forked(t, in, with(options(), func(o *forks.Options) { o.KeepLabels = []forks.LabelChange{keep} }))
	if warns := strings.Join(p.Warnings, "\n"); strings.Contains(warns, "behind") || !slices.Equal(fork.Kept(p.Forks[0].Deployment), []string{"team"}) {
		t.Errorf("it warns\n%s", warns)
	}
}

// What a Deployment does not give that the baseline's kind gives is named.
func TestForks_NameWhatTheKindGives(t *testing.T) {
	field := func(name, path string) string {
		return `{name: ` + name + `, valueFrom: {fieldRef: {fieldPath: "` + path + `"}}}`
	}
	with := func(rest string) string { return `containers: [{name: api, image: "api:1", ` + rest + `}]` }
	const index = "metadata.labels['apps.kubernetes.io/pod-index']"
	for _, tt := range []struct{ name, kind, spec, warns, lacks string }{
		{name: "a StatefulSet that shows no use of it", kind: "StatefulSet", spec: oneContainer, lacks: "ordinals and stable host names, which a StatefulSet gives its pods"},
		{name: "a StatefulSet's index", kind: "StatefulSet", spec: with(`env: [` + field("INDEX", index) + `]`),
			warns: "variable INDEX of container api is empty in the fork: it is the label apps.kubernetes.io/pod-index, the ordinal that a StatefulSet gives its pods, and a Deployment none; --env=INDEX=0 gives it a value"},
		{name: "a StatefulSet's index in a file", kind: "StatefulSet", spec: `volumes: [{name: v, downwardAPI: {items: [{path: i, fieldRef: {fieldPath: "` + index + `"}}]}}], ` + oneContainer, warns: "file i of volume v is empty in the fork"},
		{name: "a StatefulSet's name in a script", kind: "StatefulSet", spec: with(`command: [sh, -c, 'run --id=${HOSTNAME##*-}']`), warns: "container api uses its pod's name (its command), which ends in an ordinal"},
		{name: "a StatefulSet's name in a variable", kind: "StatefulSet", spec: with(`env: [` + field("POD", "metadata.name") + `, {name: SELF, value: $(POD).api}]`), warns: "what refers to its variable POD"},
		{name: "a StatefulSet's name, for the logs", kind: "StatefulSet", spec: with(`env: [` + field("POD", "metadata.name") + `]`), lacks: "ordinals and stable host names, which a StatefulSet gives its pods"},
		{name: "a StatefulSet's peers", kind: "StatefulSet", spec: with(`env: [{name: PEERS, value: "api-0.api,api-1.api"}]`), warns: "container api names the pods of the StatefulSet (variable PEERS): the fork's are not among them"},
		{name: "a DaemonSet", kind: "DaemonSet", spec: oneContainer, lacks: "a pod on each node, which a DaemonSet has"},
		{name: "a DaemonSet that asks for its node", kind: "DaemonSet", spec: with(`env: [` + field("NODE", "spec.nodeName") + `]`), warns: "container api asks for its node (variable NODE)"},
		{name: "an Argo Rollout's revision", kind: "argoproj.io/v1alpha1#Rollout", spec: with(`env: [` + field("REV", "metadata.labels['rollouts-pod-template-hash']") + `]`), warns: "that an Argo Rollout gives its pods"},
		{name: "a Deployment's revision", spec: with(`env: [` + field("REV", "metadata.labels['pod-template-hash']") + `]`)},
		{name: "a kind that comes to an end", kind: "example.com/v1#Run", spec: "restartPolicy: OnFailure, activeDeadlineSeconds: 5, " + oneContainer, warns: "its pods run to completion; the fork is a Deployment, which restarts its pods"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := (&workloadShape{kind: tt.kind, spec: tt.spec}).input(t)
			o := options("pr:1")
			o.Replicas = ptr(int64(0))
			p := forked(t, in, o)
			if warns := strings.Join(p.Warnings, "\n"); (warns == "") != (tt.warns == "") || !strings.Contains(warns, tt.warns) {
				t.Errorf("it warns\n%s\nwant\n%s", warns, tt.warns)
			}
			if got := p.Forks[0].Lacks; got != tt.lacks {
				t.Errorf("it lacks %q, want %q", got, tt.lacks)
			}
			if spec := podOf(t, p.Forks[0].Deployment).Spec; spec.RestartPolicy != "" && spec.RestartPolicy != corev1.RestartPolicyAlways || spec.ActiveDeadlineSeconds != nil {
				t.Errorf("its pods are %+v", spec)
			}
		})
	}
}

// What containers have by envFrom is told to admission, as far as it can be read.
func TestForks_TellAdmissionOfEnvFrom(t *testing.T) {
	const spec = `containers: [{name: api, image: "api:1", envFrom: [{configMapRef: {name: corp}}, {prefix: OTEL_, secretRef: {name: otel}}, {secretRef: {name: none}}], env: [{name: HTTPS_PROXY, value: x}]}, {name: side, image: "s:1"}]`
	in := (&workloadShape{spec: spec}).input(t)
	o := with(options("api=pr:1"), func(o *forks.Options) { o.Replicas = ptr(int64(0)) })
	if refs, want := forks.EnvSourceRefs(&o, in.workloads, nil), []string{"configmap/corp", "secret/none", "secret/otel"}; !slices.Equal(refs, want) {
		t.Errorf("it reads %v, want %v", refs, want)
	}
	warned := func(p *forks.Plan) string { return annotationsOf(p.Forks[0].Deployment)[sandbox.AnnotationEnvFrom] }
	in.state.EnvFrom = forks.EnvSources{
		"configmap/corp": {Data: map[string]string{"HTTP_PROXY": "http://p", "NO_PROXY": ".svc", "OTHER": "x"}},
		"secret/otel":    {Data: map[string]string{"PROPAGATORS": ""}, NamesOnly: true},
	}
	first := forked(t, in, o)
	if got, want := warned(first), `{"api":["HTTP_PROXY","NO_PROXY","OTEL_PROPAGATORS"]}`; got != want || len(first.Warnings) > 0 {
		t.Errorf("told %s, want %s; it warns %q", got, want, first.Warnings)
	}

	// Who may not read it anew leaves what is known.
	in.again(first)
	in.state.EnvFrom["secret/otel"] = env.Object{Unread: true}
	delete(in.state.EnvFrom, "configmap/corp")
	second := forked(t, in, o)
	if got, want := warned(second), `{"api":["HTTP_PROXY","NO_PROXY","OTEL_PROPAGATORS"]}`; got != want {
		t.Errorf("told %s, want %s", got, want)
	}
	if warns := strings.Join(second.Warnings, "\n"); !strings.Contains(warns, "container api has variables from secret/otel by envFrom, which you may not read: if HTTP_PROXY, NO_PROXY or OTEL_PROPAGATORS") {
		t.Errorf("it warns\n%s", warns)
	}
	if second.Forks[0].Deployment.GetAnnotations()[sandbox.AnnotationBaseline] != first.Forks[0].Deployment.GetAnnotations()[sandbox.AnnotationBaseline] {
		t.Error("what is known of envFrom makes a newer baseline")
	}
}

// A template whose lists hold a key twice is forked, and patched, as one that does not.
func TestForks_OfListsWithDuplicates(t *testing.T) {
	in := (&workloadShape{spec: `imagePullSecrets: [{name: a}, {name: a}], hostAliases: [{ip: 192.0.2.1, hostnames: [a]}, {ip: 192.0.2.1, hostnames: [b]}], ` +
		`containers: [{name: api, image: "api:1", ports: [{containerPort: 8080, name: http}, {containerPort: 8080, name: metrics}, {containerPort: 9090}, {containerPort: 9090}], env: [{name: A, value: "1"}, {name: A, value: "2"}]}]`}).input(t)
	o := options("pr:1")
	o.Env = variables("B=3")
	p := forked(t, in, o)
	if patch := p.Forks[0].Deployment.GetAnnotations()[sandbox.AnnotationPatch]; strings.Contains(patch, `"A"`) || strings.Contains(patch, "ports") {
		t.Errorf("its change is %s", patch)
	}
	c := podOf(t, p.Forks[0].Deployment).Spec.Containers[0]
	if len(c.Ports) != 2 || c.Ports[0].Name != "http" || len(c.Env) != 2 || c.Env[0].Value != "2" {
		t.Errorf("its container is %+v", c)
	}
	in.again(p)
	diffs, err := forks.Diffs("pr-42", in.workloads, in.state.Forks)
	if err != nil || strings.Contains(diffs[0].Unified, "metrics") || diffs[0].Behind || !strings.Contains(diffs[0].Unified, "+      value: \"3\"") {
		t.Errorf("diff says %v, %v", diffs, err)
	}
}

// A NetworkPolicy that names a port by the name that the fork's pods lack holds for the fork all the same.
func TestForks_PoliciesOfAPortWithTwoNames(t *testing.T) {
	in := (&workloadShape{spec: `containers: [{name: api, image: "api:1", ports: [{containerPort: 8080, name: http}, {containerPort: 8080, name: metrics}]}]`}).input(t)
	var policy networkingv1.NetworkPolicy
	b, _ := json.Marshal(parse(t, `metadata: {name: policy, namespace: shop}, spec: {podSelector: {matchLabels: {app: api}}, policyTypes: [Ingress], ingress: [{ports: [{port: metrics}, {port: http}, {port: 1}]}]}`))
	if err := json.Unmarshal(b, &policy); err != nil {
		t.Fatal(err)
	}
	in.state.Policies.Policies = []networkingv1.NetworkPolicy{policy}
	f := forked(t, in, options("pr:1")).Forks[0]
	if len(f.Policies) != 1 || len(f.Policies[0].Spec.Ingress) != 1 {
		t.Fatalf("its policies are %+v", f.Policies)
	}
	var ports []string
	for _, p := range f.Policies[0].Spec.Ingress[0].Ports {
		ports = append(ports, p.Port.String())
	}
	if want := []string{"8080", "http", "1"}; !slices.Equal(ports, want) {
		t.Errorf("it admits to %v, want %v", ports, want)
	}
}
