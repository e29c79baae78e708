package notices

import (
	"maps"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// The settings are those of the controllers' own manifests and charts.
func TestElectionOf_KnowsTheSettingsOfWellKnownControllers(t *testing.T) {
	for name, tt := range map[string]struct {
		command, args []string
		env           map[string]string
		by            string
		off           bool
	}{
		"kube-scheduler":                        {command: []string{"kube-scheduler", "--bind-address=127.0.0.1", "--leader-elect=true"}, by: "--leader-elect"},
		"kube-controller-manager, own lock":     {args: []string{"--leader-elect-resource-name=mine"}, by: "--leader-elect-resource-name"},
		"kube-scheduler alone":                  {command: []string{"kube-scheduler", "--leader-elect=false", "--leader-elect-lease-duration=15s"}, off: true},
		"kubebuilder":                           {command: []string{"/manager"}, args: []string{"--leader-elect", "--health-probe-bind-address=:8081"}, by: "--leader-elect"},
		"cert-manager":                          {args: []string{"--v=2", "--leader-election-namespace=kube-system"}, by: "--leader-election-namespace"},
		"cert-manager alone":                    {args: []string{"--leader-election-namespace=kube-system", "--leader-elect=false"}, off: true},
		"external-secrets":                      {args: []string{"--enable-leader-election=true"}, by: "--enable-leader-election"},
		"Flux alone":                            {args: []string{"--enable-leader-election=false"}, off: true},
		"AWS load balancer controller":          {args: []string{"--leader-election-id=aws-load-balancer-controller-leader"}, by: "--leader-election-id"},
		"ingress-nginx":                         {args: []string{"/nginx-ingress-controller", "--election-id=ingress-nginx-leader"}, by: "--election-id"},
		"ingress-nginx alone":                   {args: []string{"--election-id=ingress-nginx-leader", "--disable-leader-election=true"}, off: true},
		"external-provisioner":                  {args: []string{"--leader-election", "--leader-election-lease-duration=60s"}, by: "--leader-election"},
		"Spark operator":                        {args: []string{"-leader-election=true", "-leader-election-lock-name=spark"}, by: "-leader-election"},
		"Strimzi":                               {env: map[string]string{"STRIMZI_LEADER_ELECTION_ENABLED": "true"}, by: "env STRIMZI_LEADER_ELECTION_ENABLED"},
		"Strimzi alone":                         {env: map[string]string{"STRIMZI_LEADER_ELECTION_ENABLED": "false", "STRIMZI_LEADER_ELECTION_LEASE_NAME": "x"}, off: true},
		"Karpenter alone":                       {env: map[string]string{"DISABLE_LEADER_ELECTION": "true"}, off: true},
		"Karpenter":                             {env: map[string]string{"DISABLE_LEADER_ELECTION": "false"}, by: "env DISABLE_LEADER_ELECTION"},
		"Kafka, whose leaders are its own":      {env: map[string]string{"KAFKA_CFG_UNCLEAN_LEADER_ELECTION_ENABLE": "true"}},
		"Kafka by flags":                        {args: []string{"--override", "unclean.leader.election.enable=true"}},
		"an election of something else":         {args: []string{"--election-day=tuesday"}, env: map[string]string{"LEADER": "x"}},
		"a setting whose value is a variable's": {env: map[string]string{"LEADER_ELECT": ""}, by: "env LEADER_ELECT"},
	} {
		c := corev1.Container{Command: tt.command, Args: tt.args}
		for _, e := range slices.Sorted(maps.Keys(tt.env)) {
			c.Env = append(c.Env, corev1.EnvVar{Name: e, Value: tt.env[e]})
		}
		if by, off := electionOf([]corev1.Container{{Name: "side"}, c}); by != tt.by || off != tt.off {
			t.Errorf("%s: elects by %q, off: %t; want %q, %t", name, by, off, tt.by, tt.off)
		}
	}
}
