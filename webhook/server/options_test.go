package server

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func parse(t *testing.T, env map[string]string, args ...string) Options {
	t.Helper()
	var o Options
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	o.AddFlags(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	o.Complete("v1", func(name string) string { return env[name] })
	return o
}

func pod(more ...string) map[string]string {
	env := map[string]string{"POD_NAMESPACE": "team", "POD_IP": "10.0.0.7"}
	for pair := range slices.Chunk(more, 2) {
		env[pair[0]] = pair[1]
	}
	return env
}

func TestOptions_DefaultsAreValid(t *testing.T) {
	o := parse(t, pod(), "--router-image=router:1")
	if err := o.Validate(); err != nil {
		t.Error(err)
	}
	c := o.injection([]byte("CA"))
	if got := fmt.Sprintln(c.Requests.Cpu(), c.Requests.Memory(), c.Limits.Cpu(), c.Limits.Memory(), c.CA, c.ControlName); got != "10m 32Mi 200m 128Mi CA sandbox-webhook.team.svc\n" {
		t.Errorf("got %s", got)
	}
}

func TestOptions_RoutersDialTheServicesAddressFirst(t *testing.T) {
	for _, tt := range []struct {
		env  map[string]string
		args []string
		want string
	}{
		{env: pod(), want: "sandbox-webhook.team.svc:9444"},
		{env: pod("SANDBOX_WEBHOOK_SERVICE_HOST", "10.96.0.9", "SANDBOX_WEBHOOK_SERVICE_PORT_ROUTES", "444"),
			want: "10.96.0.9:444,sandbox-webhook.team.svc:444"},
		{env: pod("HOOK_SERVICE_HOST", "fd00::9"), args: []string{"--service=hook", "--routes-port=1"}, want: "[fd00::9]:1,hook.team.svc:1"},
		{env: pod("SANDBOX_WEBHOOK_SERVICE_HOST", "10.96.0.9"), args: []string{"--control-addresses=a:1,b:2"}, want: "a:1,b:2"},
	} {
		if o := parse(t, tt.env, tt.args...); o.ControlAddresses != tt.want {
			t.Errorf("got %s, want %s", o.ControlAddresses, tt.want)
		}
	}
}

func TestOptions_SaysWhatIsWrong(t *testing.T) {
	for _, tt := range []struct {
		env  map[string]string
		args []string
		want string
	}{
		{map[string]string{}, nil, "environment variable POD_NAMESPACE is missing: set it from metadata.namespace (downward API)\n" +
			`environment variable POD_IP "" is no address: set it from status.podIP (downward API)`},
		{pod(), []string{"--router-image="}, "--router-image is required"},
		{pod(), []string{"--lease=Not_a_name"}, `--lease: "Not_a_name" is no object's name`},
		{pod(), []string{"--admission-port=0"}, "--admission-port: 0 is no port number"},
		{pod(), []string{"--certificates=own"}, `--certificates: "own" is neither self nor mounted`},
		{pod(), []string{"--ca-validity=1s"}, "--ca-validity: must be at least 10s, is 1s"},
		{pod(), []string{"--leaf-validity=1s"}, "--leaf-validity: must be at least 3s, is 1s"},
		{pod(), []string{"--shutdown-delay=-1s"}, "--shutdown-delay: must not be negative, is -1s"},
		{pod(), []string{"--router-first-wait=-1s"}, "--router-first-wait: must not be negative, is -1s"},
		{pod(), []string{"--router-stale-after=0s"}, "--router-stale-after: must be positive, is 0s"},
		{pod(), []string{"--router-requests=cpu=much"}, "--router-requests: cpu=much is no quantity"},
		{pod(), []string{"--router-limits=gpu=1"}, `--router-limits: "gpu" is none of cpu, memory, ephemeral-storage`},
		{pod(), []string{"--router-limits=cpu=1m"}, "--router-limits: cpu is less than the request"},
		{pod(), []string{"--router-limits=ephemeral-storage=1Gi"}, "--router-limits: ephemeral-storage has no request in --router-requests"},
		{pod(), []string{"--router-image-pull-policy=Maybe"}, `--router-image-pull-policy: "Maybe" is none of Always, IfNotPresent, Never`},
		{pod(), []string{"--key-header=X-Key"}, `--key-header: "X-Key" must consist of lowercase letters, digits and '-'`},
		{pod(), []string{"--key-member=a=b"}, `--key-member: "a=b" must consist of lowercase letters, digits and '-'`},
		{pod(), []string{"--control-addresses=here"}, `--control-addresses: "here" is not HOST:PORT`},
		{pod(), []string{"--log-level=loud"}, `--log-level: "loud" is none of debug, info, warn, error`},
	} {
		o := parse(t, tt.env, append([]string{"--router-image=router:1"}, tt.args...)...)
		if err := o.Validate(); err == nil || err.Error() != tt.want {
			t.Errorf("%s: got %v, want %s", strings.Join(tt.args, " "), err, tt.want)
		}
	}
}
