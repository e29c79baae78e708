package cluster

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"fmt"
	"net"
	"path"
	"strings"
	"text/template"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/image"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/node"
)

// Where things are inside the node: programs/node lays them out.
const (
	insideState    = "/run/node"
	insidePrograms = "/run/programs"
	insideConfig   = insideState + "/config"
	insidePKI      = insideState + "/pki"
)

// The addresses of a cluster. Only one cluster runs on a machine at a time, so
// they need no choice.
const (
	nodeName     = "node"
	domain       = "cluster.local"
	machineIP    = "10.99.0.1"
	nodeIP       = "10.99.0.2"
	podRange     = "10.244.0.0/20" // 4093 pods
	serviceRange = "10.96.0.0/16"
	kubernetesIP = "10.96.0.1"
	dnsIP        = "10.96.0.10"
	server       = "https://" + nodeIP + ":6443"
	maxPods      = 1000
)

// ranges returns those of pods and of Services, parsed.
func ranges() (pods, services net.IPNet) {
	_, p, err := net.ParseCIDR(podRange)
	if err != nil {
		panic(err)
	}
	_, s, err := net.ParseCIDR(serviceRange)
	if err != nil {
		panic(err)
	}
	return *p, *s
}

// part is a program that runs in the node as long as the cluster does.
type part struct {
	name    string
	program string // the folder of programs it comes with
	args    []string
	files   []string // configuration files it reads: when one changes, it is restarted
}

// parts returns all parts, in the order in which they start.
func parts() []part {
	return []part{etcd(), containerd(), apiServer(), controllerManager(), scheduler(), kubelet(), proxy()}
}

func kubeconfigOf(user string) string { return insideConfig + "/" + user + ".kubeconfig" }

func pki(name string) string { return insidePKI + "/" + name }

func etcd() part {
	return part{
		name: "etcd", program: "kubernetes",
		args: []string{
			"--data-dir=" + insideState + "/etcd",
			"--listen-client-urls=http://127.0.0.1:2379",
			"--advertise-client-urls=http://127.0.0.1:2379",
			"--listen-peer-urls=http://127.0.0.1:2380",
			"--initial-advertise-peer-urls=http://127.0.0.1:2380",
			"--initial-cluster=default=http://127.0.0.1:2380",
			"--log-level=warn",
			// The loss of a test cluster's last seconds in a power cut is no loss.
			"--unsafe-no-fsync",
		},
	}
}

func containerd() part {
	return part{
		name: "containerd", program: "containerd",
		args:  []string{"--config=" + insideConfig + "/containerd.toml"},
		files: []string{"config/containerd.toml"},
	}
}

func apiServer() part {
	return part{
		name: "kube-apiserver", program: "kubernetes",
		args: []string{
			"--etcd-servers=http://127.0.0.1:2379",
			"--bind-address=" + nodeIP,
			"--advertise-address=" + nodeIP,
			"--secure-port=6443",
			"--tls-cert-file=" + pki("apiserver.crt"),
			"--tls-private-key-file=" + pki("apiserver.key"),
			"--client-ca-file=" + pki("ca.crt"),
			"--kubelet-client-certificate=" + pki("apiserver-kubelet.crt"),
			"--kubelet-client-key=" + pki("apiserver-kubelet.key"),
			"--kubelet-certificate-authority=" + pki("ca.crt"),
			"--kubelet-preferred-address-types=InternalIP",
			"--requestheader-client-ca-file=" + pki("front-proxy-ca.crt"),
			"--requestheader-allowed-names=front-proxy",
			"--requestheader-username-headers=X-Remote-User",
			"--requestheader-group-headers=X-Remote-Group",
			"--requestheader-extra-headers-prefix=X-Remote-Extra-",
			"--proxy-client-cert-file=" + pki("front-proxy.crt"),
			"--proxy-client-key-file=" + pki("front-proxy.key"),
			"--service-account-issuer=https://kubernetes.default.svc." + domain,
			"--service-account-key-file=" + pki("service-account.pub"),
			"--service-account-signing-key-file=" + pki("service-account.key"),
			"--service-cluster-ip-range=" + serviceRange,
			"--authorization-mode=Node,RBAC",
			"--enable-admission-plugins=NodeRestriction",
			"--allow-privileged=true",
			"--max-requests-inflight=1000",
			"--max-mutating-requests-inflight=500",
		},
	}
}

func controllerManager() part {
	return part{
		name: "kube-controller-manager", program: "kubernetes",
		args: []string{
			"--kubeconfig=" + kubeconfigOf("controller-manager"),
			"--authentication-kubeconfig=" + kubeconfigOf("controller-manager"),
			"--authorization-kubeconfig=" + kubeconfigOf("controller-manager"),
			"--bind-address=127.0.0.1",
			"--use-service-account-credentials=true",
			"--service-account-private-key-file=" + pki("service-account.key"),
			"--root-ca-file=" + pki("ca.crt"),
			"--cluster-signing-cert-file=" + pki("ca.crt"),
			"--cluster-signing-key-file=" + pki("ca.key"),
			"--allocate-node-cidrs=false",
			"--leader-elect=false",
			// Hundreds of forks at once are the point.
			"--kube-api-qps=500",
			"--kube-api-burst=1000",
			"--concurrent-deployment-syncs=20",
			"--concurrent-replicaset-syncs=20",
			"--concurrent-service-endpoint-syncs=20",
			"--concurrent-gc-syncs=40",
			"--concurrent-namespace-syncs=20",
			"--concurrent-job-syncs=20",
		},
		files: []string{"config/controller-manager.kubeconfig"},
	}
}

func scheduler() part {
	return part{
		name: "kube-scheduler", program: "kubernetes",
		args: []string{
			"--config=" + insideConfig + "/scheduler.yaml",
			"--authentication-kubeconfig=" + kubeconfigOf("scheduler"),
			"--authorization-kubeconfig=" + kubeconfigOf("scheduler"),
			"--bind-address=127.0.0.1",
		},
		files: []string{"config/scheduler.yaml", "config/scheduler.kubeconfig"},
	}
}

func kubelet() part {
	return part{
		name: "kubelet", program: "kubernetes",
		args: []string{
			"--config=" + insideConfig + "/kubelet.yaml",
			"--kubeconfig=" + kubeconfigOf("kubelet"),
			"--hostname-override=" + nodeName,
			"--node-ip=" + nodeIP,
		},
		files: []string{"config/kubelet.yaml", "config/kubelet.kubeconfig", "config/resolv.conf"},
	}
}

func proxy() part {
	return part{
		name: "kube-proxy", program: "kubernetes",
		args: []string{
			"--kubeconfig=" + kubeconfigOf("proxy"),
			"--hostname-override=" + nodeName,
			"--proxy-mode=nftables",
			"--cluster-cidr=" + podRange,
			"--healthz-bind-address=127.0.0.1:10256",
			"--metrics-bind-address=127.0.0.1:10249",
			// The connection table is the machine's; its limits stay.
			"--conntrack-max-per-core=0",
			"--conntrack-min=0",
			"--conntrack-tcp-timeout-established=0",
			"--conntrack-tcp-timeout-close-wait=0",
		},
		files: []string{"config/proxy.kubeconfig"},
	}
}

// users are those that have a kubeconfig inside the node, and the certificate
// each shows: the names and groups that Kubernetes' own RBAC rules are for.
func users() map[string]subject {
	return map[string]subject{
		"controller-manager": {name: "system:kube-controller-manager"},
		"scheduler":          {name: "system:kube-scheduler"},
		"proxy":              {name: "system:kube-proxy"},
		"kubelet":            {name: "system:node:" + nodeName, groups: []string{"system:nodes"}},
		"admin":              {name: "admin", groups: []string{"system:masters"}},
	}
}

// kubeconfig renders the kubeconfig of a user. The authority, certificate and
// key, all PEM, are inside, so that the file may be moved and copied.
func kubeconfig(user string, authority, certificate, key []byte) []byte {
	const name = "kubectl-sandbox"
	var b bytes.Buffer
	fmt.Fprintf(&b, `apiVersion: v1
kind: Config
clusters:
- name: %[1]s
  cluster:
    server: %[2]s
    certificate-authority-data: %[3]s
users:
- name: %[4]s
  user:
    client-certificate-data: %[5]s
    client-key-data: %[6]s
contexts:
- name: %[1]s
  context:
    cluster: %[1]s
    user: %[4]s
current-context: %[1]s
`, name, server, encode(authority), user, encode(certificate), encode(key))
	return b.Bytes()
}

func encode(data []byte) string { return base64.StdEncoding.EncodeToString(data) }

//go:embed config/containerd.toml
var containerdConfig string

//go:embed config/kubelet.yaml
var kubeletConfig string

//go:embed config/scheduler.yaml
var schedulerConfig string

//go:embed config/pods.conflist
var cniConfig string

//go:embed config/coredns.yaml
var dnsManifest string

// values are what the configuration files are rendered with.
type values struct {
	Programs map[string]string // by name: the folder, inside the node
	Pause    string            // image
	CoreDNS  string            // image
	Node     string            // address
	Domain   string
	DNS      string // address
	Pods     string // range
	MaxPods  int
	Cgroup   string
	Config   string // folder inside the node
	PKI      string // folder inside the node
	User     int    // that CoreDNS runs as
}

// newValues takes the folder of each program in the cache, by program. The
// images are named after their folders, whose names change with their content.
func newValues(folders map[string]string) values {
	v := values{
		Programs: map[string]string{},
		Pause:    imageName("pause", folders["pause"]),
		CoreDNS:  imageName("coredns", folders["coredns"]),
		Node:     nodeIP, Domain: domain, DNS: dnsIP, Pods: podRange, MaxPods: maxPods,
		Cgroup: string(node.Group), Config: insideConfig, PKI: insidePKI, User: image.User,
	}
	for program, folder := range folders {
		v.Programs[program] = insidePrograms + "/" + path.Base(folder)
	}
	return v
}

func imageName(program, folder string) string {
	return "localhost/" + program + ":" + strings.TrimPrefix(path.Base(folder), program+"-")
}

// configFiles renders the configuration files of the parts, by their path below
// the state folder.
func configFiles(v values) (map[string][]byte, error) {
	files := map[string][]byte{
		// A pod gets no resolver beside the cluster's own: nothing outside the
		// machine is ever asked.
		"config/resolv.conf": nil,
	}
	for path, text := range map[string]string{
		"config/containerd.toml":   containerdConfig,
		"config/kubelet.yaml":      kubeletConfig,
		"config/scheduler.yaml":    schedulerConfig,
		"config/cni/pods.conflist": cniConfig,
	} {
		content, err := render(path, text, v)
		if err != nil {
			return nil, err
		}
		files[path] = content
	}
	return files, nil
}

func render(name, text string, v values) ([]byte, error) {
	t, err := template.New(name).Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
