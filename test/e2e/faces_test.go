package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// exits holds the exit status of a command.
func exits(t *testing.T, r result, want int) {
	t.Helper()
	got := 0
	var exit *exec.ExitError
	if errors.As(r.err, &exit) {
		got = exit.ExitCode()
	} else if r.err != nil {
		t.Fatal(r)
	}
	if got != want {
		t.Errorf("exit status %d, want %d: %v", got, want, r)
	}
}

// What programs read of sandboxes and routes, and what exit statuses say, on the life of one sandbox.
func TestFaces_AreReadByMachines(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(podinfo("api", 1), podinfoService("api"))
	s.available("api")

	t.Log("nothing is there")
	exits(t, s.trySandbox("delete", "typo"), status.ExitFailed)
	exits(t, s.trySandbox("delete", "typo", "--ignore-not-found"), status.ExitOK)
	exits(t, s.trySandbox("extend", "typo"), status.ExitFailed)
	exits(t, s.trySandbox("share", "typo", "--revoke"), status.ExitFailed)
	r := s.trySandbox("status", "typo", "-o", "json")
	exits(t, r, status.ExitFailed)
	var failure status.Error
	if err := json.Unmarshal([]byte(r.stderr), &failure); err != nil || failure.Code != string(metav1.StatusReasonNotFound) || failure.Object != "sandbox/typo" || failure.Command == "" {
		t.Errorf("%v: the error is %+v", err, failure)
	}

	t.Log("routed, and not forked")
	s.sandbox("route", "deploy/api")
	var routes status.RouteStatusList
	s.decode(&routes, "route", "-o", "json")
	if len(routes.Items) != 1 || routes.Items[0].Workload != "deployment/api" || routes.Items[0].State != "Routed" || len(routes.Items[0].Routes) != 0 {
		t.Errorf("route lists %+v", routes.Items)
	}

	t.Log("forked, while list watches")
	watch := s.command(t.Context(), "kubectl", "sandbox", "-n", s.name, "list", "-w", "--no-headers")
	out, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	forked := s.sandbox("fork", "deploy/api", "--name=usd", "--image="+apps.Podinfo(1))
	if !strings.Contains(forked.stdout, "kubectl sandbox open usd svc/") || !strings.Contains(forked.stdout, "baggage: sandbox-key=usd") {
		t.Errorf("fork prints\n%s", forked.stdout)
	}
	lines := bufio.NewScanner(out)
	for routed := false; !routed && lines.Scan(); {
		routed = strings.HasPrefix(lines.Text(), "usd ") && strings.Contains(lines.Text(), "Routed")
	}
	_ = watch.Process.Kill() // a watch has no end of its own
	_ = watch.Wait()
	if err := lines.Err(); err != nil {
		t.Errorf("list -w never says Routed: %v", err)
	}
	exits(t, s.trySandbox("status", "usd", "--exit-code"), status.ExitOK)
	var one status.SandboxStatus
	s.decode(&one, "status", "usd", "-o", "json")
	if one.Key != "usd" || one.State != "Routed" || len(one.Forks) != 1 || len(one.Forks[0].Images) == 0 || len(one.Forks[0].URLs) == 0 {
		t.Errorf("status prints %+v", one)
	}
	if got := s.sandbox("list", "-o", "jsonpath={.items[0].conditions[?(@.type==\"Routed\")].reason}").stdout; got != "Routed" {
		t.Errorf("the reason is %q", got)
	}

	t.Log("an unknown format deletes nothing")
	exits(t, s.trySandbox("delete", "usd", "-o", "foo"), status.ExitUsage)
	if _, err := s.client.CoreV1().ConfigMaps(s.name).Get(t.Context(), sandbox.ConfigMapName("usd"), metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	exits(t, s.trySandbox("unroute", "--all"), status.ExitFailed) // in use

	t.Log("deleted with one that is not there, unrouted by --all")
	exits(t, s.trySandbox("delete", "usd", "typo"), status.ExitFailed)
	if _, err := s.client.CoreV1().ConfigMaps(s.name).Get(t.Context(), sandbox.ConfigMapName("usd"), metav1.GetOptions{}); err == nil {
		t.Error("the sandbox that is there was not deleted")
	}
	s.sandbox("unroute", "--all")
	s.decode(&routes, "route", "-o", "json")
	if len(routes.Items) != 0 {
		t.Errorf("routed after unroute --all: %+v", routes.Items)
	}
}

// A Service whose workload is gone goes back to its port numbers by its own name.
func TestUnroute_OfAServiceWhoseWorkloadIsGone(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(podinfo("api", 1), podinfoService("api"))
	s.available("api")
	s.sandbox("route", "deploy/api")
	exits(t, s.trySandbox("unroute", "svc/typo"), status.ExitFailed)
	s.kubectl("delete", "deployment/api", "--wait")
	services, err := s.client.CoreV1().Services(s.name).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, svc := range services.Items {
		s.sandbox("unroute", "svc/"+svc.Name)
	}
	eventually(t, 10*time.Second, "Services without marks", func(ctx context.Context) error {
		services, err := s.client.CoreV1().Services(s.name).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, svc := range services.Items {
			if svc.Annotations[sandbox.AnnotationTargetPorts] != "" || svc.Labels[sandbox.LabelRole] != "" {
				return fmt.Errorf("service/%s has marks: %v, %v", svc.Name, svc.Labels, svc.Annotations)
			}
		}
		return nil
	})
}

// decode runs `kubectl sandbox`, which must succeed, and decodes what it prints.
func (s *space) decode(into any, args ...string) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(s.sandbox(args...).stdout), into); err != nil {
		s.t.Fatal(err)
	}
}
