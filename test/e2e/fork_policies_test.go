package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// What the objects mean is judged in ../policies: this cluster's network plugin enforces none of them. Here is what becomes of
// them: who makes, owns, names, changes, adopts and removes them.
// policiesOfFriends deny all but what friends ask of the API.
const policiesOfFriends = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api}
spec:
  podSelector: {matchLabels: {app: api}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: friend}}}]
    ports: [{port: 9898}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friend}
spec:
  podSelector: {matchLabels: {app: friend}}
  policyTypes: [Egress]
  egress:
  - to: [{podSelector: {matchLabels: {app: api}}}]
    ports: [{port: 9898}]
`

func TestPoliciesOfAForkComeAndGoWithIt(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(podinfo("api", 1), podinfoService("api"))
	s.applyYAML(policiesOfFriends)
	s.available("api")
	s.grant("sandbox-user", "dev")
	dev, pr1 := as("dev@example.test"), sandbox.LabelSandbox+"=pr-1"
	s.sandbox("route", "deploy/api")
	s.available("api")
	users := s.policies(sandbox.LabelRole + "!=" + sandbox.RoleFork)

	file := filepath.Join(t.TempDir(), "pr-1.yaml")
	printed := s.sandbox("fork", "deploy/api", "--name=pr-1", "--key=key-1", "--env=X=1", "--dry-run=client", "-o", "yaml").stdout
	if err := os.WriteFile(file, []byte(printed), 0o600); err != nil {
		t.Fatal(err)
	}
	made := s.sandbox(append([]string{"fork", "deploy/api", "--name=pr-1", "--key=key-1", "--env=X=1"}, dev...)...)
	own := s.policies(pr1)
	if len(own) != 2 {
		t.Fatalf("the fork has %d policies, want its own and one for its friend:\n%s", len(own), made.stdout)
	}
	status := s.sandbox(append([]string{"status", "pr-1"}, dev...)...).stdout
	s.ownedAndTold(own, made.stdout, status)
	friend := peer{labels: map[string]string{"app": "friend"}, namespace: s.name}
	stranger := peer{labels: map[string]string{"app": "stranger"}, namespace: s.name}
	fork, baseline := s.pods("kubectl-sandbox.dev/sandbox=pr-1")[0], s.pods("app=api")[0]
	to := target{peer: peerOf(&fork), port: httpPort}
	if !s.admitted(friend, to) || s.admitted(stranger, to) || !s.admitted(peerOf(&baseline), to) {
		t.Errorf("admitted to the fork: friend %t, stranger %t, baseline %t", s.admitted(friend, to), s.admitted(stranger, to), s.admitted(peerOf(&baseline), to))
	}

	// The same again writes nothing; with a policy of the user's gone, what it was for goes too.
	again := s.sandbox(append([]string{"fork", "deploy/api", "--name=pr-1"}, dev...)...)
	if same := s.policies(pr1); !slices.EqualFunc(own, same, func(a, b networkingv1.NetworkPolicy) bool { return a.ResourceVersion == b.ResourceVersion }) {
		t.Errorf("forked again, policies were written: %s", again.stdout)
	}
	s.kubectl("delete", "networkpolicy", "friend")
	s.sandbox("route", "deploy/api")
	s.sandbox(append([]string{"fork", "deploy/api", "--name=pr-1"}, dev...)...)
	if left := s.policies(pr1); len(left) != 1 || left[0].Name != "sandbox-fork-api-pr-1" {
		t.Errorf("left %v", left)
	}

	gone := s.sandbox(append([]string{"delete", "pr-1"}, dev...)...)
	if left := s.policies(pr1); len(left) != 0 || !strings.Contains(gone.stdout, "networkpolicy.networking.k8s.io/sandbox-fork-api-pr-1 deleted") {
		t.Errorf("delete printed\n%s\nand left %d policies", gone.stdout, len(left))
	}

	s.adopts(file, own)
	s.sandbox("delete", "pr-1")
	if left := s.policies(pr1); len(left) != 0 {
		t.Errorf("delete left %d policies", len(left))
	}
	for _, p := range s.policies(sandbox.LabelRole + "!=" + sandbox.RoleFork) {
		if i := slices.IndexFunc(users, func(u networkingv1.NetworkPolicy) bool { return u.Name == p.Name }); p.Labels[sandbox.LabelRole] == "" && (i < 0 || users[i].ResourceVersion != p.ResourceVersion) {
			t.Errorf("networkpolicy %s of the user's was changed", p.Name)
		}
	}
}

// ownedAndTold checks that the policies of sandbox pr-1 are its own and labelled so, and that fork and status name them.
func (s *space) ownedAndTold(own []networkingv1.NetworkPolicy, made, status string) {
	t := s.t
	t.Helper()
	cm, err := s.client.CoreV1().ConfigMaps(s.name).Get(t.Context(), "sandbox-pr-1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range own {
		if len(p.OwnerReferences) != 1 || p.OwnerReferences[0].UID != cm.UID {
			t.Errorf("%s is owned by %v", p.Name, p.OwnerReferences)
		}
		if want := map[string]string{sandbox.LabelSandbox: "pr-1", sandbox.LabelRole: sandbox.RoleFork, sandbox.LabelWorkload: "deployment.api"}; !reflect.DeepEqual(p.Labels, want) {
			t.Errorf("%s has labels %v", p.Name, p.Labels)
		}
		if !strings.Contains(made, "networkpolicy.networking.k8s.io/"+p.Name+" created") || !strings.Contains(status, "networkpolicy/"+p.Name+" ") {
			t.Errorf("fork printed\n%s\nstatus\n%s\nwant %s in both", made, status, p.Name)
		}
	}
}

// adopts applies a sandbox's file as from Git, and waits until its policies are the sandbox's own.
func (s *space) adopts(file string, own []networkingv1.NetworkPolicy) {
	t := s.t
	t.Helper()
	// The controller gives them their owner, so that they go with the sandbox.
	s.kubectl("apply", "-f", file)
	eventually(t, 60*time.Second, "policies from Git are adopted", func(context.Context) error {
		got := s.policies(sandbox.LabelSandbox + "=pr-1")
		if len(got) != 2 {
			return fmt.Errorf("%d policies", len(got))
		}
		for i, p := range got {
			if len(p.OwnerReferences) != 1 {
				return errors.New(p.Name + " has no owner")
			}
			if !reflect.DeepEqual(p.Spec, own[i].Spec) {
				return fmt.Errorf("%s is\n%v\nwant\n%v", p.Name, p.Spec, own[i].Spec)
			}
		}
		return nil
	})
}

// policies returns those that a label selector selects, in order of name.
func (s *space) policies(selector string) []networkingv1.NetworkPolicy {
	s.t.Helper()
	list, err := s.client.NetworkingV1().NetworkPolicies(s.name).List(s.t.Context(), metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		s.t.Fatal(err)
	}
	return list.Items
}
