package main

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/hotrod"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// next prints what to try now.
func (d *demo) next(ctx context.Context, took time.Duration) {
	d.step("Now you")
	d.say("the demo took %s, and everything is still there; in this shell:", took.Round(100*time.Millisecond))
	address := "localhost:8080"
	var lines [][2]string
	if d.own != "" {
		lines = append(lines, [2]string{"export PATH=$PWD/bin:$PATH KUBECONFIG=$PWD/.cluster/kubeconfig", "the programs and the cluster of this demo"})
		if s, err := d.client.CoreV1().Services(d.namespace).Get(ctx, hotrod.Frontend, metav1.GetOptions{}); err == nil {
			address = fmt.Sprintf("%s:%d", s.Spec.ClusterIP, hotrod.Port(hotrod.Frontend))
		}
	} else {
		lines = append(lines, [2]string{"kubectl port-forward -n " + d.namespace + " service/frontend 8080:8080 &", "a way in"})
	}
	n := " -n " + d.namespace
	lines = append(lines,
		[2]string{"curl -H 'baggage: " + sandbox.DefaultMember + "=fast-db' 'http://" + address + "/dispatch?customer=392'", "into a sandbox"},
		[2]string{"kubectl sandbox fork deploy/route --name=fast-db --env=GOMAXPROCS=1" + n, "one more service, in the same sandbox"},
		[2]string{"kubectl sandbox fork deploy/driver --name=old-driver --image=" + d.target.Reference(apps.Hotrod) + n, "update a fork"},
		[2]string{"kubectl sandbox status fast-db" + n, "what is ready, and what is not and why"},
		[2]string{"kubectl get deployments,pods -l " + sandbox.LabelSandbox + n, "nothing but native objects"},
		[2]string{"kubectl sandbox delete --all" + n, "the sandboxes go"},
		[2]string{"kubectl sandbox unroute deploy/frontend deploy/customer deploy/driver deploy/route" + n, "all is as it was"},
	)
	for _, l := range lines {
		fmt.Fprintf(d.out, "\n   %s\n   %s %s\n", d.dim("# "+l[1]), d.dim("$"), d.cyan(l[0]))
	}
	if d.own != "" {
		fmt.Fprintf(d.out, "\n   %s\n   %s %s\n", d.dim("# end the cluster, and leave nothing behind"), d.dim("$"), d.cyan("make cluster-down"))
	}
}
