package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/calls"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/hotrod"
)

const (
	variantsAtOnce = 20 // of one experiment
	copiesARound   = 4  // namespaces with a copy of HotROD, for each experiment
	settling       = 10 * time.Second
)

// checks are the tests of a variant: the arguments of podinfo's client, after the URL of customer.
func checks() []string {
	return []string{"/customer?customer=123", "/customer?customer=392", "/customer?customer=567", "/customer?customer=731", "/customer?customer=123&again=1"}
}

// A cost is what a variant took, with the checks of it.
type cost struct {
	pods   int     // made
	held   int     // of them, for as long as the variant lived
	calls  int     // of the client to the API server
	cpu    float64 // seconds, of all of the cluster and of the client, without what the cluster takes when nothing goes on
	memory float64 // MiB, of processes in pods while all that is of the variant runs
	took   float64 // seconds
}

// variants measures what variants cost that share a stack, beside variants that each get a copy of it.
func (b *bench) variants(ctx context.Context, rounds int) (string, error) {
	var ours, copies []cost
	for round := range rounds {
		h := *b
		var err error
		if h.namespace, err = b.stack(ctx, apps.Hotrod); err != nil {
			return "", err
		}
		measured, err := h.experiment(ctx, round)
		if err != nil {
			return "", errors.Join(err, h.clean())
		}
		ours = append(ours, measured)
		fmt.Fprintf(os.Stderr, "%2d  variant %+v\n", round+1, measured)
		for range copiesARound {
			measured, err := b.copied(ctx)
			if err != nil {
				return "", errors.Join(err, h.clean())
			}
			copies = append(copies, measured)
			fmt.Fprintf(os.Stderr, "%2d  copy    %+v\n", round+1, measured)
		}
		if err := errors.Join(h.clean(), b.vanished(ctx, h.namespace)); err != nil {
			return "", err
		}
	}
	return variantResults(ours, copies), nil
}

// stack brings up HotROD in a namespace of its own, with an image for customer, and returns the namespace.
func (b *bench) stack(ctx context.Context, customer string) (string, error) {
	ns, err := b.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "bench-hotrod-"}}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	h := *b
	h.namespace = ns.Name
	_, err = h.applied(ctx, customer)
	return h.namespace, err
}

// applied applies HotROD as people do, waits for it, and returns how many API calls that were.
func (b *bench) applied(ctx context.Context, customer string) (int, error) {
	var manifest bytes.Buffer
	deployments, services := hotrod.Objects()
	for _, d := range deployments {
		d.TypeMeta = metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}
		if d.Name == hotrod.Customer {
			d.Spec.Template.Spec.Containers[0].Image = customer
		}
		if err := json.NewEncoder(&manifest).Encode(d); err != nil {
			return 0, err
		}
	}
	for _, s := range services {
		s.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}
		if err := json.NewEncoder(&manifest).Encode(s); err != nil {
			return 0, err
		}
	}
	n, err := b.counted(ctx, &manifest, "apply", "-f", "-")
	for _, name := range hotrod.Services() {
		if err == nil {
			var more int
			more, err = b.counted(ctx, nil, "rollout", "status", "deployment/"+name, "--timeout=180s")
			n += more
		}
	}
	return n, err
}

// counted runs kubectl, and counts its API calls by what it tells of them.
func (b *bench) counted(ctx context.Context, in *bytes.Buffer, args ...string) (int, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(b.programs, "kubectl"), append(args, "--namespace="+b.namespace, "-v=6")...) //nolint:gosec // ours
	cmd.Env = append(os.Environ(), "KUBECONFIG="+b.kubeconfig)
	if in != nil {
		cmd.Stdin = in
	}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, said.Bytes())
	}
	return bytes.Count(said.Bytes(), []byte("milliseconds")), nil
}

// checkJob is a check, of the customer at the address in SANDBOX_URL.
func checkJob(i int, path, env string) string {
	return fmt.Sprintf(`---
apiVersion: batch/v1
kind: Job
metadata: {name: check-%d, annotations: {kubectl-sandbox.dev/services: customer}}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
      - name: test
        image: %s
        imagePullPolicy: IfNotPresent
        args: [check, http, "$(SANDBOX_URL)%s", --retry=3, --timeout=20s]
        env: [%s]
        resources: {requests: {cpu: 1m, memory: 16Mi}}
`, i, apps.Podcli, path, env)
}

// experiment tests all variants in one run, and returns what each took on average.
func (b *bench) experiment(ctx context.Context, round int) (cost, error) {
	if err := b.kubectl(ctx, "sandbox", "route", "deployment/"+hotrod.Customer); err != nil {
		return cost{}, err
	}
	dir, err := os.MkdirTemp("", "bench-variants-")
	if err != nil {
		return cost{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	suite, report := filepath.Join(dir, "suite.yaml"), filepath.Join(dir, "report.json")
	var jobs strings.Builder
	for i, path := range checks() {
		jobs.WriteString(checkJob(i, path, ""))
	}
	if err := os.WriteFile(suite, []byte(jobs.String()), 0o600); err != nil {
		return cost{}, err
	}
	args := []string{
		"test", "deployment/customer", "--filename=" + suite, "--report=json=" + report, fmt.Sprintf("--id=bench-%d", round), "--require=all",
		"--delete=all", "--kubeconfig=" + b.kubeconfig, "--namespace=" + b.namespace, "--cache-dir=" + dir,
	}
	for i := range variantsAtOnce {
		args = append(args, fmt.Sprintf("--variant=v%d=%s", i, apps.HotrodEven))
	}
	c, err := b.measure(ctx, func() (int, error) {
		made, err := calls.Plugin(ctx, args...)
		return len(made), err
	})
	if err != nil {
		return c, err
	}
	raw, err := os.ReadFile(report)
	if err != nil {
		return c, err
	}
	var r experiment.Report
	if err := json.Unmarshal(raw, &r); err != nil {
		return c, err
	}
	if r.Outcome != experiment.Passed || len(r.Variants) != variantsAtOnce {
		return c, fmt.Errorf("the experiment is %s, of %d variants", r.Outcome, len(r.Variants))
	}
	c.pods, c.held = 1+len(checks()), 1
	c.calls = (c.calls + variantsAtOnce/2) / variantsAtOnce
	c.cpu, c.memory, c.took = c.cpu/variantsAtOnce, c.memory/variantsAtOnce, c.took/variantsAtOnce
	return c, nil
}

// copied tests one variant by a copy of all of HotROD in a namespace of its own, with the same checks one after the other.
func (b *bench) copied(ctx context.Context) (cost, error) {
	c, err := b.measure(ctx, func() (int, error) {
		h := *b
		h.namespace = fmt.Sprintf("bench-copy-%d", time.Now().UnixNano())
		n, err := h.counted(ctx, nil, "create", "namespace", h.namespace)
		if err != nil {
			return n, err
		}
		add := func(more int, err error) error {
			n += more
			return err
		}
		if err := add(h.applied(ctx, apps.HotrodEven)); err != nil {
			return n, err
		}
		for i, path := range checks() {
			job := bytes.NewBufferString(checkJob(i, path, fmt.Sprintf(`{name: SANDBOX_URL, value: "http://customer:%d"}`, hotrod.Port(hotrod.Customer))))
			if err := add(h.counted(ctx, job, "apply", "-f", "-")); err != nil {
				return n, err
			}
			if err := add(h.counted(ctx, nil, "wait", "--for=condition=complete", "--timeout=120s", fmt.Sprintf("job/check-%d", i))); err != nil {
				return n, err
			}
		}
		return n, add(h.counted(ctx, nil, "delete", "namespace", h.namespace))
	})
	c.held = len(hotrod.Services())
	c.pods = c.held + len(checks())
	return c, err
}

// vanished waits until a namespace is gone.
func (b *bench) vanished(ctx context.Context, namespace string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*patience)
	defer cancel()
	for {
		list, err := b.client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + namespace})
		if err != nil || len(list.Items) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("namespace %s is not gone: %w", namespace, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// measure tells what work takes that counts API calls. Work ends when all that it made is being deleted; what that takes is measured
// as well, by the time in which the cluster comes to rest after it.
func (b *bench) measure(ctx context.Context, work func() (calls int, err error)) (cost, error) {
	rest := func() error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(settling):
			return nil
		}
	}
	read := func() (float64, error) {
		cluster, err := clusterCPU()
		return cluster + clientCPU(), err
	}
	if err := rest(); err != nil { // from what was before
		return cost{}, err
	}
	before, err := read()
	if err == nil {
		err = rest()
	}
	if err != nil {
		return cost{}, err
	}
	idle, err := read()
	if err != nil {
		return cost{}, err
	}
	memory, err := podMemory()
	if err != nil {
		return cost{}, err
	}
	var most float64
	var sampling sync.WaitGroup
	ended := make(chan struct{})
	sampling.Go(func() {
		for {
			if now, err := podMemory(); err == nil {
				most = max(most, now)
			}
			select {
			case <-ended:
				return
			case <-time.After(250 * time.Millisecond):
			}
		}
	})
	start := time.Now()
	n, err := work()
	took := time.Since(start)
	close(ended)
	sampling.Wait()
	if err == nil {
		err = rest()
	}
	if err != nil {
		return cost{}, err
	}
	after, err := read()
	if err != nil {
		return cost{}, err
	}
	passed := time.Since(start).Seconds()
	return cost{calls: n, cpu: after - idle - (idle-before)*passed/settling.Seconds(), memory: (most - memory) / (1 << 20), took: took.Seconds()}, nil
}

// clientCPU is the CPU time, in seconds, of this process and of those it has run.
func clientCPU() float64 {
	var all float64
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if syscall.Getrusage(who, &u) == nil {
			all += float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
		}
	}
	return all
}

// The control groups of the cluster and of its pods, in the hierarchies of version 1 and of version 2.
const cgroups = "/sys/fs/cgroup"

// clusterCPU is the CPU time, in seconds, of all that ever ran in the cluster: node and pods.
func clusterCPU() (float64, error) {
	if raw, err := os.ReadFile(cgroups + "/cpuacct/kubectl-sandbox/cpuacct.usage"); err == nil {
		var ns float64
		_, err := fmt.Sscan(string(raw), &ns)
		return ns / 1e9, err
	}
	us, err := field(cgroups+"/kubectl-sandbox/cpu.stat", "usage_usec")
	return us / 1e6, err
}

// podMemory is the memory, in bytes, of all processes in pods, without caches of files.
func podMemory() (float64, error) {
	if bytes, err := field(cgroups+"/memory/kubectl-sandbox/kubepods/memory.stat", "total_rss"); err == nil {
		return bytes, nil
	}
	return field(cgroups+"/kubectl-sandbox/kubepods/memory.stat", "anon")
}

// field returns a number of a file of names and numbers.
func field(path, name string) (float64, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if key, value, _ := strings.Cut(strings.TrimSpace(line), " "); key == name {
			var n float64
			_, err := fmt.Sscan(value, &n)
			return n, err
		}
	}
	return 0, fmt.Errorf("%s: no %s", path, name)
}

// variantResults writes what was measured, as Markdown.
func variantResults(ours, copies []cost) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d variants by %d checks, %d times in one run each; %d copies.\n\n", variantsAtOnce, len(checks()), len(ours), len(copies))
	fmt.Fprint(&b, "| a variant, with its checks | in a sandbox | in a copy of HotROD | copy to sandbox |\n|---|---|---|---|\n")
	for _, row := range []struct {
		what string
		of   func(cost) float64
	}{
		{"pods made", func(c cost) float64 { return float64(c.pods) }},
		{"pods held for as long as it lives", func(c cost) float64 { return float64(c.held) }},
		{"API calls of the client, watches among them", func(c cost) float64 { return float64(c.calls) }},
		{"CPU-seconds of cluster and client", func(c cost) float64 { return c.cpu }},
		{"MiB of its pods, at most", func(c cost) float64 { return c.memory }},
		{"seconds, alone or as a share of the run", func(c cost) float64 { return c.took }},
	} {
		all := func(costs []cost) []float64 {
			var out []float64
			for _, c := range costs {
				out = append(out, row.of(c))
			}
			slices.Sort(out)
			return out
		}
		x, y := all(ours), all(copies)
		fmt.Fprintf(&b, "| %s | %s | %s | **%.1f** (%.1f to %.1f) |\n", row.what, within(x), within(y),
			middle(y)/middle(x), y[0]/x[len(x)-1], y[len(y)-1]/x[0])
	}
	return b.String()
}

// middle is the median of what is sorted, and within it with its bounds.
func middle(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func within(sorted []float64) string {
	if low, high := sorted[0], sorted[len(sorted)-1]; low != high {
		return fmt.Sprintf("%.3g (%.3g to %.3g)", middle(sorted), low, high)
	}
	return fmt.Sprintf("%.3g", sorted[0])
}
