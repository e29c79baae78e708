package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/appliers"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
)

// A reapplied is one way of writing a workload and its Services, in testdata/reapply/NAME.yaml.
type reapplied struct {
	name string
	kind string // of the workload
	// rolls says that a new image reaches clients without a gap: there is more than one pod while it rolls out.
	rolls bool
	h2c   bool
	short bool // part of the short form
}

func reappliedShapes() []reapplied {
	return []reapplied{
		{name: "number", kind: "deployment", rolls: true, short: true},
		{name: "name", kind: "deployment", rolls: true},
		{name: "two-services", kind: "deployment", rolls: true},
		{name: "two-containers", kind: "deployment", rolls: true},
		{name: "statefulset", kind: "statefulset"},
		{name: "daemonset", kind: "daemonset", rolls: true},
		{name: "autoscaler", kind: "deployment", rolls: true},
		{name: "budget", kind: "deployment", rolls: true},
		{name: "nodeport", kind: "deployment", rolls: true},
		{name: "probes", kind: "deployment", rolls: true},
		{name: "h2c", kind: "deployment", rolls: true, h2c: true},
		{name: "mixed", kind: "deployment", rolls: true, short: true},
	}
}

// A team's pipeline goes on as before after `route`: whatever it applies its manifests with, applying them again never fails, costs
// no request, takes no keyed request away from its fork, and rolls out what it would roll out anyway.
func TestManifestsAreAppliedAgainUnderLoad(t *testing.T) {
	t.Parallel()
	for _, shape := range reappliedShapes() {
		t.Run(shape.name, func(t *testing.T) {
			if testing.Short() && !shape.short {
				t.Skip("part of the long form")
			}
			t.Parallel()
			s := newSpace(t)
			for i, c := range s.reapply(shape) {
				t.Run(string(appliers.Ways()[i]), func(t *testing.T) {
					for _, p := range c.problems {
						t.Error(p)
					}
				})
			}
		})
	}
}

// A cell is a shape brought to the cluster in one way, under a name of its own.
type cell struct {
	shape   reapplied
	way     appliers.Way
	release appliers.Release
	text    string // of the manifests, with IMAGE
	load    []*load

	problems []string
}

func (c *cell) workload() string { return c.shape.kind + "/" + c.release.Name }

func (c *cell) problem(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// apply applies the manifests with an image.
func (c *cell) apply(ctx context.Context, image string) error {
	c.release.Manifests = strings.ReplaceAll(c.text, "IMAGE", image)
	_, err := shared.appliers.Apply(ctx, c.way, c.release)
	return err
}

// reapply returns a cell for each way, with what went wrong in it.
func (s *space) reapply(shape reapplied) []*cell {
	s.t.Helper()
	cells := s.install(shape)
	plain := s.rollouts(cells, func(c *cell) { // what the pipeline does without us
		if err := c.apply(s.t.Context(), apps.Podinfo(0)); err != nil {
			s.t.Fatalf("%s fails without us: %v", c.way, err)
		}
	})
	var workloads []string
	for _, c := range cells {
		workloads = append(workloads, c.workload())
	}
	s.sandbox(append([]string{"route"}, workloads...)...)
	s.settled(cells)
	s.sandbox(append(append([]string{"fork"}, workloads...), "--name=pr-1", "--key=key-1", "--env=PODINFO_UI_MESSAGE=forked",
		"--timeout=5m")...) // there are nine of them
	for _, c := range cells {
		s.startLoad(c)
	}
	again := s.rollouts(cells, func(c *cell) {
		if err := c.apply(s.t.Context(), apps.Podinfo(0)); err != nil {
			c.problem("the manifests, applied again: %v", err)
		}
	})
	for i, c := range cells {
		if again[i] != plain[i] {
			c.problem("the manifests, applied again, made %d rollouts, and without us %d", again[i], plain[i])
		}
		if drift, err := shared.appliers.Drift(s.t.Context(), c.way, c.release); err != nil || drift != "" {
			c.problem("its own dry run finds a difference: %v\n%s", err, drift)
		}
	}
	if shape.rolls {
		s.redeploy(cells)
	}
	for _, c := range cells {
		for _, l := range c.load {
			if n, failed := l.stop(); len(failed) > 0 || n < 20 {
				c.problem("%s: %d of %d requests failed:\n%s", l.name, len(failed), n, listed(failed))
			}
		}
	}
	return cells
}

// redeploy has each pipeline bring a new image, as on any day.
func (s *space) redeploy(cells []*cell) {
	s.t.Helper()
	rolled := s.rollouts(cells, func(c *cell) {
		if err := c.apply(s.t.Context(), apps.Podinfo(1)); err != nil {
			c.problem("a new image: %v", err)
		}
	})
	for i, c := range cells {
		if rolled[i] != 1 {
			c.problem("a new image made %d rollouts", rolled[i])
		}
		image := s.kubectl("get", c.workload(), "-o", "jsonpath={.spec.template.spec.containers[0].image}")
		if image != apps.Podinfo(1) {
			c.problem("after a new image the workload has %s", image)
		}
	}
}

// install brings the shape to the namespace in every way.
func (s *space) install(shape reapplied) []*cell {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "reapply", shape.name+".yaml"))
	if err != nil {
		s.t.Fatal(err)
	}
	var cells []*cell
	for _, way := range appliers.Ways() {
		name := "api-" + way.Slug()
		cells = append(cells, &cell{shape: shape, way: way, text: strings.ReplaceAll(string(text), "NAME", name),
			release: appliers.Release{Namespace: s.name, Name: name, Folder: filepath.Join(s.t.TempDir(), name)}})
	}
	inPairs(cells, func(c *cell) {
		c.release.Manifests = strings.ReplaceAll(c.text, "IMAGE", apps.Podinfo(0))
		if _, err := shared.appliers.Install(s.t.Context(), c.way, c.release); err != nil {
			s.t.Errorf("%s, for the first time: %v", c.way, err)
		}
	})
	if s.t.Failed() {
		s.t.FailNow()
	}
	s.settled(cells)
	return cells
}

// inPairs does something to every cell, to two at a time.
func inPairs(cells []*cell, do func(*cell)) {
	var all sync.WaitGroup
	defer all.Wait()
	slots := make(chan struct{}, 2)
	for _, c := range cells {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			do(c)
		})
	}
}

// settled waits until every workload is rolled out, and what it serves has come to the node's rules.
func (s *space) settled(cells []*cell) {
	s.t.Helper()
	for _, c := range cells {
		s.kubectl("rollout", "status", c.workload(), "--timeout=180s")
	}
	time.Sleep(settle)
}

// startLoad sends the cell requests with and without the key until it is stopped.
func (s *space) startLoad(c *cell) {
	s.t.Helper()
	const rate = 4
	address := s.address(c.release.Name, "http")
	protocol := vegeta.KeepAlive(true)
	if c.shape.h2c {
		protocol = vegeta.H2C(true)
	}
	baseline := func(a answer) error {
		if a.Message != apps.Release(0) && a.Message != apps.Release(1) {
			return fmt.Errorf("answered by %s (%q)", a.Hostname, a.Message)
		}
		return nil
	}
	key := carriers("key-1")[1]
	c.load = []*load{
		startAttack(s.t, "unkeyed", address, "/api/info", rate, nil, baseline, protocol),
		startAttack(s.t, "keyed", address, "/api/info", rate, http.Header{key.name: {key.value}}, says("forked", true), protocol),
	}
}

// rollouts does something to every cell, waits until all has settled, and returns how many rollouts each made.
func (s *space) rollouts(cells []*cell, do func(*cell)) []int {
	s.t.Helper()
	before := s.revisions(cells)
	inPairs(cells, do)
	s.settled(cells)
	after := s.revisions(cells)
	made := make([]int, len(cells))
	for i := range cells {
		made[i] = after[i] - before[i]
	}
	return made
}

// revisions returns how often each workload was rolled out so far, by the revisions that its own controller counts.
func (s *space) revisions(cells []*cell) []int {
	s.t.Helper()
	var all struct {
		Items []struct {
			Metadata metav1.ObjectMeta
			Revision int
		}
	}
	raw := s.kubectl("get", "deployments,controllerrevisions", "-o", "json")
	if err := json.Unmarshal([]byte(raw), &all); err != nil {
		s.t.Fatal(err)
	}
	made := make([]int, len(cells))
	for i, c := range cells {
		for _, o := range all.Items {
			deployment := c.shape.kind == "deployment" && o.Metadata.Name == c.release.Name
			owned := slices.ContainsFunc(o.Metadata.OwnerReferences, func(r metav1.OwnerReference) bool { return r.Name == c.release.Name })
			switch {
			case deployment:
				n, err := strconv.Atoi(o.Metadata.Annotations["deployment.kubernetes.io/revision"])
				if err != nil {
					s.t.Fatal(err)
				}
				made[i] = n
			case owned && labels.SelectorFromSet(app(c.release.Name)).Matches(labels.Set(o.Metadata.Labels)):
				made[i] = max(made[i], o.Revision)
			}
		}
	}
	return made
}
