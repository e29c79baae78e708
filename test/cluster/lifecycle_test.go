//go:build linux && cluster

package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/node"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/process"
)

// The lifecycle tests bring clusters up and down for real (-tags=cluster). They
// run in mount, network and control group namespaces of their own, which are a
// machine to them: so they leave alone a cluster that is in use on this one, and
// what a cluster leaves behind can be told from what others do meanwhile.

const (
	insideVariable = "KUBECTL_SANDBOX_LIFECYCLE_TEST"
	testGroup      = node.Cgroup("/kubectl-sandbox-test")
)

func TestMain(m *testing.M) {
	run := func() (int, error) { return inNamespaces() }
	if os.Getenv(insideVariable) != "" {
		run = func() (int, error) {
			if err := furnish(); err != nil {
				return 1, err
			}
			return m.Run(), nil
		}
	}
	code, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// inNamespaces runs this test program again in namespaces of its own and returns
// its exit code.
func inNamespaces() (int, error) {
	if os.Geteuid() != 0 {
		return 1, errors.New("these tests need root")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	before, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return 1, err
	}
	if err := testGroup.Make(); err != nil {
		return 1, err
	}
	// A namespace's root is the group of who makes it.
	if err := testGroup.Join(os.Getpid()); err != nil {
		return 1, err
	}
	command := exec.Command("/proc/self/exe", os.Args[1:]...)
	command.Env = append(os.Environ(), insideVariable+"=1")
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP, Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		return 1, err
	}
	if err := rejoin(before); err != nil {
		return 1, err
	}
	err = command.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 1, err
	}
	return command.ProcessState.ExitCode(), testGroup.Remove(ctx)
}

// rejoin moves this process back to where /proc/self/cgroup said it was.
func rejoin(before []byte) error {
	for line := range strings.Lines(string(before)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		mount := "/sys/fs/cgroup/" + strings.TrimPrefix(fields[1], "name=")
		if fields[1] == "" {
			mount = "/sys/fs/cgroup"
			if _, err := os.Stat(mount + "/unified"); err == nil {
				mount += "/unified"
			}
		}
		if err := os.WriteFile(mount+fields[2]+"/cgroup.procs", []byte("0"), 0); err != nil {
			return err
		}
	}
	return nil
}

// furnish makes a machine of fresh namespaces: control groups from their own
// root on, an empty /run, and a loopback interface.
func furnish() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		before, after, _ := strings.Cut(line, " - ")
		at, kind := strings.Fields(before)[4], strings.Fields(after)
		if !strings.HasPrefix(kind[0], "cgroup") {
			continue
		}
		var options []string
		if kind[0] == "cgroup" {
			for option := range strings.SplitSeq(kind[2], ",") {
				if option != "rw" {
					options = append(options, option)
				}
			}
		}
		if err := unix.Unmount(at, 0); err != nil {
			return fmt.Errorf("unmount %s: %w", at, err)
		}
		if err := unix.Mount("cgroup", at, kind[0], 0, strings.Join(options, ",")); err != nil {
			return fmt.Errorf("mount %s: %w", at, err)
		}
		if kind[0] == "cgroup2" { // whose groups hold either processes or groups
			if err := os.Mkdir(at+"/test", 0o755); err != nil && !errors.Is(err, os.ErrExist) {
				return err
			}
			if err := os.WriteFile(at+"/test/cgroup.procs", []byte("0"), 0); err != nil {
				return err
			}
		}
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return err
	}
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(loopback)
}

// machine is all that a cluster might leave behind.
func machine(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for name, command := range map[string][]string{
		"mounts":    {"cat", "/proc/self/mounts"},
		"rules":     {"nft", "list", "ruleset"},
		"groups":    {"sh", "-c", "cd /sys/fs/cgroup && find . -type d | sort"},
		"processes": {"sh", "-c", "cd /sys/fs/cgroup && find . -name cgroup.procs | grep -v '^./cgroup.procs\\|/test/\\|^./[^/]*/cgroup.procs' | xargs -r cat"},
		"run":       {"find", "/run"},
		"elsewhere": {"sh", "-c", `for d in /etc/cni /opt/cni /opt/containerd /var/lib/cni /var/lib/kubelet /var/lib/containerd
			/var/lib/etcd /var/log/pods /var/log/containers /etc/kubernetes /usr/libexec/kubernetes; do ls -d $d 2>/dev/null; done; true`},
	} {
		command[len(command)-1] = strings.ReplaceAll(command[len(command)-1], "\n", " ")
		out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
		found[name] = string(out)
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		found["links"] += link.Attrs().Name + "\n"
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	for _, route := range routes {
		found["routes"] += route.String() + "\n"
	}
	sysctls, err := node.Sysctls()
	if err != nil {
		t.Fatal(err)
	}
	found["sysctls"] = fmt.Sprint(sysctls)
	return found
}

// testCluster returns a cluster at a path that is longer than a socket's can be.
func testCluster(t *testing.T) *Cluster {
	t.Helper()
	root, err := FindRoot(".")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), strings.Repeat("deep/", 25))
	c, err := New(Config{Root: root, State: filepath.Join(dir, ".cluster"), Bin: filepath.Join(dir, "bin"), Progress: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c
}

func bringUp(t *testing.T, c *Cluster) {
	t.Helper()
	if err := c.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func takeDown(t *testing.T, c *Cluster) {
	t.Helper()
	if err := c.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// pids returns those of all parts that run.
func pids(t *testing.T, c *Cluster) map[string]process.ID {
	t.Helper()
	r, err := c.running()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]process.ID{"node": r.Node}
	for name, part := range r.Parts {
		if !part.Running() {
			t.Errorf("%s does not run", name)
		}
		found[name] = part.ID
	}
	return found
}

// dns returns the pod of CoreDNS, which is what survives or not: its container's
// id and how often it was restarted.
func dns(t *testing.T, c *Cluster) string {
	t.Helper()
	client, err := newClient(c.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	pods, err := client.typed.CoreV1().Pods("kube-system").List(t.Context(), metav1.ListOptions{LabelSelector: "k8s-app=kube-dns"})
	if err != nil {
		t.Fatal(err)
	}
	if len(pods.Items) != 1 || len(pods.Items[0].Status.ContainerStatuses) != 1 {
		t.Fatalf("%d pods of CoreDNS", len(pods.Items))
	}
	pod := pods.Items[0]
	return fmt.Sprintf("%s %s", pod.UID, pod.Status.ContainerStatuses[0].ContainerID)
}

func TestLifecycleLeavesNothing(t *testing.T) {
	before := machine(t)
	c := testCluster(t)
	bringUp(t, c)
	first := pids(t, c)
	bringUp(t, c)
	if again := pids(t, c); !maps.Equal(first, again) {
		t.Errorf("a second up restarted parts: %v, then %v", first, again)
	}
	takeDown(t, c)
	after := machine(t)
	for what, was := range before {
		if after[what] != was {
			t.Errorf("%s differ. before:\n%s\nafter:\n%s", what, was, after[what])
		}
	}
	if _, err := os.Stat(c.config.State); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the state is left: %v", err)
	}
	takeDown(t, c)
	if _, err := c.Status(); !errors.Is(err, ErrNoCluster) {
		t.Errorf("status: %v", err)
	}
}

func TestLifecycleMendsWhatWasKilled(t *testing.T) {
	c := testCluster(t)
	bringUp(t, c)
	pod := dns(t, c)
	kill := func(names ...string) {
		t.Helper()
		running := pids(t, c)
		for _, name := range names {
			if err := running[name].Kill(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		bringUp(t, c)
		pids(t, c)
	}
	var all []string
	for _, p := range parts() {
		kill(p.name)
		all = append(all, p.name)
	}
	kill(all...)
	if now := dns(t, c); now != pod {
		t.Errorf("CoreDNS was %s and is %s: a pod should outlive the programs of the node", pod, now)
	}

	// All at once, pods included.
	namespaced := func(ctx context.Context, name string) error {
		client, err := newClient(c.Kubeconfig())
		if err != nil {
			return err
		}
		_, err = client.typed.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		return err
	}
	kill("node")
	if now := dns(t, c); now == pod {
		t.Error("CoreDNS outlived its node")
	}
	if err := namespaced(t.Context(), "kube-system"); err != nil {
		t.Error(err)
	}
}

func TestLifecycleTellsOtherProcessesFromItsOwn(t *testing.T) {
	c := testCluster(t)
	bringUp(t, c)
	if err := node.Stop(t.Context(), pids(t, c)["node"]); err != nil {
		t.Fatal(err)
	}
	// As after a long time: the numbers on record are those of other processes.
	other := exec.Command("sleep", "600")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	r, err := readRecord()
	if err != nil {
		t.Fatal(err)
	}
	r.Node.PID = other.Process.Pid
	for name, part := range r.Parts {
		part.PID = other.Process.Pid
		r.Parts[name] = part
	}
	if err := r.write(); err != nil {
		t.Fatal(err)
	}
	bringUp(t, c)
	takeDown(t, c)
	if err := other.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the other process was ended: %v", err)
	}
	if err := other.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = other.Wait()
}

func TestLifecycleStartsAPartOnce(t *testing.T) {
	c := testCluster(t)
	bringUp(t, c)
	// As if up had been killed right after it started the scheduler.
	r, err := readRecord()
	if err != nil {
		t.Fatal(err)
	}
	const name = "kube-scheduler"
	lost := r.Parts[name]
	delete(r.Parts, name)
	if err := r.write(); err != nil {
		t.Fatal(err)
	}
	bringUp(t, c)
	if lost.Running() {
		t.Error("there are two")
	}
	found, err := node.Find(r.Node, name)
	if err != nil || !slices.Equal(found, []process.ID{pids(t, c)[name]}) {
		t.Errorf("found %v, %v", found, err)
	}
}

func TestLifecycleOfTwoClones(t *testing.T) {
	one, two := testCluster(t), testCluster(t)
	bringUp(t, one)
	err := two.Up(t.Context())
	if err == nil || !strings.Contains(err.Error(), filepath.Dir(one.config.State)) || !strings.Contains(err.Error(), "--take-over") {
		t.Fatalf("a second cluster: %v", err)
	}
	held := pids(t, one)
	takeDown(t, two)
	if !maps.Equal(held, pids(t, one)) {
		t.Error("down of one clone changed another's cluster")
	}
	if err := two.Load(t.Context(), os.DevNull); !errors.Is(err, ErrNoCluster) {
		t.Errorf("load: %v", err)
	}
	two.config.TakeOver = true
	bringUp(t, two)
	if _, err := one.Status(); !errors.Is(err, ErrNoCluster) {
		t.Errorf("status of the one taken over: %v", err)
	}
	takeDown(t, two)
	bringUp(t, one) // with what it held

	remove := func(dir string) { // under a cluster that goes on writing to it
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); ; {
			err := os.RemoveAll(dir)
			if err == nil {
				return
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
	remove(filepath.Dir(one.config.State)) // the clone is deleted
	two.config.TakeOver = false
	bringUp(t, two)
	remove(two.config.State)
	bringUp(t, two) // anew
}
