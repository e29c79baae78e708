package chart_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	appsv1 "k8s.io/api/apps/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/server"
)

// The webhook itself takes the arguments and the environment that the chart gives it.
func TestArguments_AreThoseThatTheWebhookTakes(t *testing.T) {
	for name, values := range valueSets() {
		if o := options(t, only[*appsv1.Deployment](t, mustTemplate(t, values))); o != nil {
			if err := o.Validate(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestArguments_CarryTheValues(t *testing.T) {
	o := options(t, only[*appsv1.Deployment](t, mustTemplate(t, valueSets()["everything"])))
	for what, pair := range map[string][2]any{
		"key.header":                {o.KeyHeader, "x-team-key"},
		"key.member":                {o.KeyMember, "team-key"},
		"router.firstWait":          {o.RouterFirstWait, 5 * time.Second},
		"router.staleAfter":         {o.RouterStaleAfter, time.Hour},
		"router.controlAddresses":   {o.ControlAddresses, "10.1.2.3:9444,sandbox.test:9444"},
		"router requests of cpu":    {o.RouterRequests["cpu"], "20m"},
		"router requests of memory": {o.RouterRequests["memory"], "48Mi"},
		"router limits of cpu":      {o.RouterLimits["cpu"], "1"},
		"router limits of memory":   {o.RouterLimits["memory"], "256Mi"},
		"image.pullPolicy":          {o.RouterPullPolicy, "Always"},
		"follow.kinds":              {o.FollowKinds["Rollout.v1alpha1.argoproj.io"], "rollouts"},
		"log.level":                 {o.LogLevel, "debug"},
		"sandboxes.maxPerNamespace": {o.MaxSandboxes, 7},
		"marks.guard":               {o.Guarded, true},
		"sandboxes.warnBefore":      {o.WarnBefore, time.Minute},
		"shutdownDelaySeconds":      {o.ShutdownDelay, 20 * time.Second},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: webhook has %v, want %v", what, pair[0], pair[1])
		}
	}
	o = options(t, only[*appsv1.Deployment](t, mustTemplate(t, map[string]any{"certificates": map[string]any{"caValidity": "1h", "leafValidity": "1m"}})))
	if minimal := options(t, only[*appsv1.Deployment](t, mustTemplate(t, map[string]any{"marks": map[string]any{"guard": false}}))); minimal.Guarded {
		t.Error("marks.guard=false: the webhook asks for rights that no policy asks for")
	}
	if o.CAValidity != time.Hour || o.LeafValidity != time.Minute || o.CASecret != "sandbox-webhook-ca" {
		t.Errorf("certificates: %+v", o)
	}
}

// options parses what the chart gives the webhook as the webhook does.
func options(t *testing.T, d *appsv1.Deployment) *server.Options {
	t.Helper()
	var o server.Options
	flags := pflag.NewFlagSet("sandbox-webhook", pflag.ContinueOnError)
	o.AddFlags(flags)
	c := d.Spec.Template.Spec.Containers[0]
	if err := flags.Parse(c.Args); err != nil {
		t.Errorf("%v\n%s", err, strings.Join(c.Args, "\n"))
		return nil
	}
	if flags.NArg() != 0 {
		t.Errorf("arguments that are no flags: %v", flags.Args())
	}
	from := map[string]string{"metadata.name": "sandbox-webhook-0", "metadata.namespace": "kubectl-sandbox", "status.podIP": "10.0.0.1"}
	env := map[string]string{}
	for _, e := range c.Env {
		if e.ValueFrom.ResourceFieldRef != nil {
			env[e.Name] = strconv.Itoa(512 << 20)
			continue
		}
		env[e.Name] = from[e.ValueFrom.FieldRef.FieldPath]
	}
	if _, ok := env[server.EnvMemoryLimit]; !ok {
		t.Errorf("environment variable %s is missing", server.EnvMemoryLimit)
	}
	o.Complete("v1", func(name string) string { return env[name] })
	return &o
}
