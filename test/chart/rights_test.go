package chart_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// webhookRights is all that the webhook may do in every namespace. It grows only on purpose.
func webhookRights() []string {
	return []string{
		"get,list,watch pods",
		"patch pods/status",
		"get,list,watch,patch apps/deployments",
		"get,list,watch apps/daemonsets",
		"get,list,watch apps/replicasets",
		"get,list,watch apps/statefulsets",
		"get,list,watch,patch,delete configmaps",
		"list,watch,patch services",
		"list,watch,patch networking.k8s.io/networkpolicies",
		"list,watch limitranges",
		"create,patch events.k8s.io/events",
		"create authentication.k8s.io/tokenreviews",
		"create authorization.k8s.io/subjectaccessreviews",
		"get,list,watch,patch admissionregistration.k8s.io/mutatingwebhookconfigurations [kubectl-sandbox]",
	}
}

func TestRights_OfTheWebhookAreThoseItUses(t *testing.T) {
	for name, values := range valueSets() {
		role := clusterRole(t, mustTemplate(t, values), "sandbox-webhook")
		var got []string
		for _, r := range role.Rules {
			got = append(got, describe(r)...)
		}
		if name == "everything" { // follow.kinds
			at := slices.Index(got, "get,list,watch argoproj.io/rollouts")
			if at < 0 {
				t.Fatalf("%s: webhook may not read the kinds to follow: %v", name, got)
			}
			got = slices.Delete(got, at, at+1)
		}
		if !slices.Equal(got, webhookRights()) {
			t.Errorf("%s: webhook may\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(webhookRights(), "\n"))
		}
	}
}

func TestRights_NoneIsAWildcardOrLeadsToMore(t *testing.T) {
	for name, values := range valueSets() {
		objects := mustTemplate(t, values)
		for _, r := range all[*rbacv1.ClusterRole](objects) {
			for _, rule := range r.Rules {
				checkRule(t, name+": "+r.Name, rule)
				if slices.Contains(rule.Resources, "secrets") {
					t.Errorf("%s: ClusterRole %s reaches Secrets of every namespace", name, r.Name)
				}
			}
		}
		for _, r := range all[*rbacv1.Role](objects) {
			for _, rule := range r.Rules {
				checkRule(t, name+": "+r.Name, rule)
				named := slices.Contains(rule.Resources, "secrets") || slices.Contains(rule.Resources, "leases")
				if named && !slices.Equal(rule.Verbs, []string{"create"}) && len(rule.ResourceNames) == 0 {
					t.Errorf("%s: Role %s is not limited to a name: %v", name, r.Name, rule)
				}
			}
		}
	}
}

func checkRule(t *testing.T, where string, rule rbacv1.PolicyRule) {
	t.Helper()
	for _, word := range slices.Concat(rule.Verbs, rule.Resources, rule.APIGroups) {
		if strings.Contains(word, "*") {
			t.Errorf("%s has a wildcard: %v", where, rule)
		}
	}
	for _, verb := range []string{"bind", "escalate", "impersonate", "deletecollection"} {
		if slices.Contains(rule.Verbs, verb) {
			t.Errorf("%s may %s: %v", where, verb, rule)
		}
	}
	for _, resource := range []string{"pods/exec", "pods/attach", "serviceaccounts/token", "nodes", "nodes/proxy"} {
		if slices.Contains(rule.Resources, resource) {
			t.Errorf("%s reaches %s: %v", where, resource, rule)
		}
	}
	if len(rule.NonResourceURLs) != 0 {
		t.Errorf("%s: %v", where, rule)
	}
}

func TestRights_ToSecretsAreOnlyForOwnCertificates(t *testing.T) {
	for name, want := range map[string]bool{"defaults": true, "cert-manager": false, "secret": false} {
		got := false
		for _, r := range all[*rbacv1.Role](mustTemplate(t, valueSets()[name])) {
			for _, rule := range r.Rules {
				got = got || slices.Contains(rule.Resources, "secrets")
			}
		}
		if got != want {
			t.Errorf("%s: rights to Secrets: %t", name, got)
		}
	}
}

func TestRights_OfPeopleAggregate(t *testing.T) {
	objects := mustTemplate(t, nil)
	for name, label := range map[string]string{"sandbox-user": "aggregate-to-edit", "sandbox-admin": "aggregate-to-admin"} {
		role := clusterRole(t, objects, name)
		if role.Labels["rbac.authorization.k8s.io/"+label] != "true" {
			t.Errorf("%s is not labelled %s", name, label)
		}
	}
	for _, r := range clusterRole(t, objects, "sandbox-user").Rules {
		for _, resource := range r.Resources {
			write := slices.ContainsFunc(r.Verbs, func(v string) bool { return !slices.Contains([]string{"get", "list", "watch"}, v) })
			if write && !slices.Contains([]string{"configmaps", "deployments", "jobs", "networkpolicies", "pods/portforward", sandbox.RightResource}, resource) {
				t.Errorf("sandbox-user may change %s", resource)
			}
		}
	}
	for _, b := range all[*rbacv1.ClusterRoleBinding](objects) {
		for _, s := range b.Subjects {
			if s.Kind == rbacv1.GroupKind && b.RoleRef.Name != "sandbox-discovery" {
				t.Errorf("%s gives %s to group %s", b.Name, b.RoleRef.Name, s.Name)
			}
		}
	}
}

// The verbs that the policies of marks ask for are those that the roles grant, and each role grants its own alone.
func TestRights_ToMarksAreGrantedByTheirVerbs(t *testing.T) {
	objects := mustTemplate(t, nil)
	for role, want := range map[string]string{"sandbox-user": sandbox.VerbFork, "sandbox-admin": sandbox.VerbRoute} {
		var got []string
		for _, r := range clusterRole(t, objects, role).Rules {
			if slices.Contains(r.APIGroups, sandbox.RightGroup) {
				got = append(got, describe(r)...)
			}
		}
		if want := []string{want + " " + sandbox.RightGroup + "/" + sandbox.RightResource}; !slices.Equal(got, want) {
			t.Errorf("%s may %q, want %q", role, got, want)
		}
	}
	policies := 0
	for _, p := range all[*admissionv1.ValidatingAdmissionPolicy](objects) {
		if !strings.HasPrefix(p.Name, "sandbox-marks-") {
			continue
		}
		policies++
		if *p.Spec.FailurePolicy != admissionv1.Fail {
			t.Errorf("%s: failurePolicy %s", p.Name, *p.Spec.FailurePolicy)
		}
		for _, verb := range []string{sandbox.VerbFork, sandbox.VerbRoute} {
			ask := fmt.Sprintf(`authorizer.group(%q).resource(%q).namespace(request.namespace).check(%q).allowed()`, sandbox.RightGroup, sandbox.RightResource, verb)
			if !slices.ContainsFunc(p.Spec.Validations, func(v admissionv1.Validation) bool { return strings.Contains(v.Expression, ask) }) {
				t.Errorf("%s does not ask for the verb %s", p.Name, verb)
			}
		}
		for _, verb := range []string{sandbox.VerbFork, sandbox.VerbRoute} {
			roles, err := json.Marshal(sandbox.RolesOf(verb))
			if err != nil {
				t.Fatal(err)
			}
			asks := "variables.roles.exists(r, r in " + strings.ReplaceAll(string(roles), ",", ", ") + ")"
			if !slices.ContainsFunc(p.Spec.Variables, func(v admissionv1.Variable) bool { return v.Name == verb && strings.Contains(v.Expression, asks) }) {
				t.Errorf("%s asks for the verb %s for other roles than %s", p.Name, verb, roles)
			}
		}
		data := func(v admissionv1.Variable) bool {
			return v.Name == "marked" && strings.Contains(v.Expression, "|| variables.newData")
		}
		if slices.ContainsFunc(p.Spec.Variables, data) != (p.Name == "sandbox-marks-objects") {
			t.Errorf("%s: data of ConfigMaps is guarded by the policy of objects, and by no other", p.Name)
		}
		bound := slices.ContainsFunc(all[*admissionv1.ValidatingAdmissionPolicyBinding](objects), func(b *admissionv1.ValidatingAdmissionPolicyBinding) bool {
			return b.Spec.PolicyName == p.Name && slices.Equal(b.Spec.ValidationActions, []admissionv1.ValidationAction{admissionv1.Deny}) && b.Spec.MatchResources == nil
		})
		if !bound {
			t.Errorf("%s is not in force", p.Name)
		}
	}
	if policies != 2 {
		t.Errorf("%d policies of marks, want 2", policies)
	}
	if n := len(all[*admissionv1.ValidatingAdmissionPolicy](mustTemplate(t, valueSets()["minimal"]))); n != 0 {
		t.Errorf("%d policies though none is asked for", n)
	}
}

// A kind that makes pods of a template is guarded, because the controllers that do so are exempt; so are the kinds that values
// name, with the accounts of their controllers.
func TestMarks_OfEveryKindWithATemplateAreGuarded(t *testing.T) {
	for name, want := range map[string][]string{
		"defaults": {"apps/daemonsets", "apps/deployments", "apps/replicasets", "apps/statefulsets", "batch/cronjobs", "batch/jobs",
			"/replicationcontrollers", "argoproj.io/rollouts"},
		"everything": {"apps/deployments", "example.test/things"},
	} {
		for _, p := range all[*admissionv1.ValidatingAdmissionPolicy](mustTemplate(t, valueSets()[name])) {
			if p.Name != "sandbox-marks-workloads" {
				continue
			}
			var got []string
			for _, r := range p.Spec.MatchConstraints.ResourceRules {
				for _, resource := range r.Resources {
					got = append(got, r.APIGroups[0]+"/"+resource)
				}
			}
			for _, w := range want {
				if !slices.Contains(got, w) {
					t.Errorf("%s: %s is not guarded: %v", name, w, got)
				}
			}
			exempt, templates := p.Spec.MatchConditions[0].Expression, p.Spec.Variables[2].Expression
			if name == "everything" && (!strings.Contains(exempt, `"system:serviceaccount:things:controller",`) ||
				!strings.Contains(templates, "variables.new.?spec.?pod.?template.?metadata.?labels.orValue({}),")) {
				t.Errorf("%s:\n%s\n%s", name, exempt, templates)
			}
		}
	}
}

func clusterRole(t *testing.T, objects []runtime.Object, name string) *rbacv1.ClusterRole {
	t.Helper()
	for _, r := range all[*rbacv1.ClusterRole](objects) {
		if r.Name == name {
			return r
		}
	}
	t.Fatalf("chart has no ClusterRole %s", name)
	return nil
}

// describe writes a rule as one line a resource: "VERBS GROUP/RESOURCE [NAMES]".
func describe(r rbacv1.PolicyRule) []string {
	var lines []string
	for _, group := range r.APIGroups {
		for _, resource := range r.Resources {
			line := strings.Join(r.Verbs, ",") + " " + strings.TrimPrefix(group+"/"+resource, "/")
			if len(r.ResourceNames) > 0 {
				line += fmt.Sprint(" ", r.ResourceNames)
			}
			lines = append(lines, line)
		}
	}
	return lines
}
