package command

import (
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
)

// structured says that -o asks for objects, not for words.
func (f *forkFlags) structured() bool {
	return f.print.OutputFormat != nil && *f.print.OutputFormat != ""
}

// printDryRun prints what would be applied, without what only the API server knows.
func (f *forkFlags) printDryRun(p *plan.ForkPlan) error {
	objects := []runtime.Object{p.ConfigMap}
	for i := range p.Forks {
		d := p.Forks[i].Deployment.DeepCopy()
		d.SetOwnerReferences(nil)
		objects = append(objects, d)
	}
	verbs := make([]string, len(p.Forks))
	for i := range p.Forks {
		verbs[i] = verb(&p.Forks[i], -1)
	}
	return f.printObjects(objects, verbs)
}

// printApplied prints what was applied, unwaited for.
func (f *forkFlags) printApplied(p *plan.ForkPlan, applied *cluster.Applied, real bool) error {
	if err := f.printForks(p, applied); err != nil || f.structured() || !real {
		return err
	}
	f.describe(p, "")
	for _, d := range applied.Forks {
		fmt.Fprintf(f.Out, "wait until it is routed:\n  %s\n", f.line(plan.Kubectl("rollout", "status", "deployment/"+d.GetName())))
	}
	return nil
}

// printRouted prints what was forked and how to reach it.
func (f *forkFlags) printRouted(p *plan.ForkPlan, applied *cluster.Applied, statuses map[string]plan.ForkStatus) error {
	if err := f.printForks(p, applied); err != nil || f.structured() {
		return err
	}
	f.describe(p, ", routed in "+time.Since(f.begun).Round(10*time.Millisecond).String())
	var pods []corev1.Pod
	for i := range p.Forks {
		s := statuses[p.Forks[i].Name()]
		pods = append(pods, s.Pods...)
		if len(s.Pods) == 0 {
			continue
		}
		for _, r := range plan.RunningImages(&s.Pods[0]) {
			fmt.Fprintf(f.Out, "container %s runs %s", r.Container, r.Image)
			if r.Digest != "" {
				fmt.Fprintf(f.Out, " (%s)", r.Digest)
			}
			fmt.Fprintln(f.Out)
		}
	}
	f.reach(p, plan.KeyHeader(pods))
	return nil
}

// describe prints the sandbox in one line.
func (f *forkFlags) describe(p *plan.ForkPlan, more string) {
	expires := "never expires"
	if !p.Expires.IsZero() {
		expires = fmt.Sprintf("expires in %s, at %s", duration.HumanDuration(p.Expires.Sub(f.begun)+time.Second/2), p.Expires.Local().Format("2006-01-02 15:04 MST"))
	}
	fmt.Fprintf(f.Out, "sandbox %s: key %s%s, %s\n", p.Sandbox, p.Key, more, expires)
}

// reach prints the commands that send keyed requests: from inside the cluster, and from here.
func (f *forkFlags) reach(p *plan.ForkPlan, header string) {
	for i := range p.Forks {
		if len(p.Forks[i].Reach) == 0 {
			continue
		}
		e := p.Forks[i].Reach[0]
		port, local := strconv.Itoa(int(e.Port)), int(e.Port)
		if local < 1024 {
			local += 8000
		}
		at := strconv.Itoa(local)
		host := e.Host()
		if port != "80" {
			host += ":" + port
		}
		fmt.Fprintf(f.Out, "reach it from inside the cluster:\n  %s\n", plan.Quote(e.Curl(header, p.Key, host)))
		fmt.Fprintf(f.Out, "open it here:\n  %s\n  %s\n",
			f.line(plan.Kubectl("port-forward", "service/"+e.Service, at+":"+port)), plan.Quote(e.Curl(header, p.Key, "localhost:"+at)))
	}
}

// line writes a command with the caller's own choice of cluster and namespace.
func (t *tool) line(words []string) string { return plan.Quote(withGlobals(words, given(t.globals))) }

// printForks prints the objects that -o asks for, else a line for each fork.
func (f *forkFlags) printForks(p *plan.ForkPlan, applied *cluster.Applied) error {
	cm := applied.ConfigMap.DeepCopy()
	cm.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}
	objects := []runtime.Object{cm}
	var verbs []string
	for i, d := range applied.Forks {
		objects = append(objects, d)
		verbs = append(verbs, verb(&p.Forks[i], d.GetGeneration()))
	}
	return f.printObjects(objects, verbs)
}

// printObjects prints a ConfigMap and forks; for each fork there is a verb.
func (f *forkFlags) printObjects(objects []runtime.Object, verbs []string) error {
	if !f.structured() {
		for i, o := range objects[1:] {
			if err := f.printOne(verbs[i], o); err != nil {
				return err
			}
		}
		return nil
	}
	switch *f.print.OutputFormat {
	case "yaml", "kyaml", "name": // one document each, ready for Git
		for _, o := range objects {
			if err := f.printOne("forked", o); err != nil {
				return err
			}
		}
		return nil
	}
	list := &unstructured.UnstructuredList{Object: map[string]any{"apiVersion": "v1", "kind": "List"}}
	for _, o := range objects {
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
		if err != nil {
			return err
		}
		list.Items = append(list.Items, unstructured.Unstructured{Object: content})
	}
	return f.printOne("forked", list)
}

// printOne prints an object as -o says, or that VERB happened to it.
func (f *forkFlags) printOne(verb string, o runtime.Object) error {
	f.print.NamePrintFlags.Operation = verb
	printer, err := cmdutil.PrintFlagsWithDryRunStrategy(f.print, f.dryRun).ToPrinter()
	if err != nil {
		return err
	}
	return printer.PrintObj(o, f.Out)
}

// verb says what became of a fork, in the words of `kubectl apply` where there was one before. A negative generation is not
// known.
func verb(f *plan.Fork, generation int64) string {
	switch f.Replaces {
	case 0:
		return "forked"
	case generation:
		return "unchanged"
	}
	return "configured"
}
