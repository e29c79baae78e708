package router

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestConfigFromEnv(t *testing.T) {
	ca := string(newAuthority(t).pem)
	whole := map[string]string{
		sandbox.EnvRouterPorts: "http=15361:8080,grpc=15362:9090", sandbox.EnvRouterControl: "10.0.0.1:9444,routes.x:9444",
		sandbox.EnvRouterControlName: "sandbox-webhook.x.svc", sandbox.EnvRouterCA: ca, sandbox.EnvRouterToken: "/token",
		sandbox.EnvRouterState: "/state", sandbox.EnvRouterPodName: "p", sandbox.EnvRouterPodIP: "10.0.0.2",
		sandbox.EnvRouterAdmin: ":15360", sandbox.EnvRouterHeader: "X-My-Key", sandbox.EnvRouterMember: "my-key",
		sandbox.EnvRouterStaleAfter: "1h", sandbox.EnvRouterFirstWait: "0s",
	}
	c, err := ConfigFromEnv(func(name string) string { return whole[name] })
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Captures) != 2 || c.Captures[1].Number != 9090 || len(c.Control) != 2 || c.Carriers.Header != "x-my-key" ||
		c.Carriers.Member != "my-key" || c.StaleAfter != time.Hour || c.FirstWait != 0 {
		t.Errorf("got %+v", c)
	}
	for name, test := range map[string]struct {
		set  map[string]string
		want string
	}{
		"port":                 {map[string]string{sandbox.EnvRouterPorts: "http=x"}, sandbox.EnvRouterPorts},
		"control":              {map[string]string{sandbox.EnvRouterControl: "nohost"}, sandbox.EnvRouterControl},
		"control port":         {map[string]string{sandbox.EnvRouterControl: "host:http"}, sandbox.EnvRouterControl},
		"no name":              {map[string]string{sandbox.EnvRouterControlName: ""}, sandbox.EnvRouterControlName + ": must be set"},
		"no authority":         {map[string]string{sandbox.EnvRouterCA: "x"}, sandbox.EnvRouterCA},
		"no token":             {map[string]string{sandbox.EnvRouterToken: ""}, sandbox.EnvRouterToken},
		"no pod name":          {map[string]string{sandbox.EnvRouterPodName: ""}, sandbox.EnvRouterPodName},
		"duration":             {map[string]string{sandbox.EnvRouterStaleAfter: "soon"}, sandbox.EnvRouterStaleAfter},
		"negative duration":    {map[string]string{sandbox.EnvRouterFirstWait: "-1s"}, sandbox.EnvRouterFirstWait},
		"header":               {map[string]string{sandbox.EnvRouterHeader: "x y"}, sandbox.EnvRouterHeader},
		"member":               {map[string]string{sandbox.EnvRouterMember: "a,b"}, sandbox.EnvRouterMember},
		"outgoing not local":   {map[string]string{sandbox.EnvRouterOutgoing: "0.0.0.0:15359"}, "not a loopback address"},
		"outgoing without key": {map[string]string{sandbox.EnvRouterOutgoing: "127.0.0.1:15359"}, sandbox.EnvKey},
		"admin":                {map[string]string{sandbox.EnvRouterAdmin: "15360"}, sandbox.EnvRouterAdmin},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ConfigFromEnv(func(name string) string {
				if v, ok := test.set[name]; ok {
					return v
				}
				return whole[name]
			})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	c, err = ConfigFromEnv(func(name string) string {
		return map[string]string{sandbox.EnvRouterOutgoing: "127.0.0.1:15359", sandbox.EnvKey: "k"}[name]
	})
	if err != nil || c.StaleAfter != DefaultStaleAfter || c.Carriers.Header != sandbox.DefaultHeader {
		t.Errorf("got %+v (%v)", c, err)
	}
}
