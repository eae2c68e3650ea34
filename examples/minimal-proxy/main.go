// minimal-proxy makes the cluster IPs of Services work for TCP over IPv4, and nothing else.
//
// It is an example of a proxy that can be put under test, not one to be used: it asks the API for
// everything twice a second at most and writes its whole table anew when something has changed.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sort"
	"strings"
	"syscall"
	"time"
)

const (
	// Where a pod finds its token and the certificate of the API server.
	account = "/var/run/secrets/kubernetes.io/serviceaccount/"
	// The label of a slice that says which Service it is of.
	serviceName = "kubernetes.io/service-name"
	// Least time between two writes of the table.
	pause = 500 * time.Millisecond
	// Wait after an error.
	retry = time.Second
)

// Objects that another proxy handles, or none at all.
const notOurs = "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless"

type meta struct {
	Name, Namespace string
	Labels          map[string]string
}

type service struct {
	Metadata meta
	Spec     struct {
		Type, ClusterIP string
		Ports           []struct {
			Name, Protocol string
			Port           int
		}
	}
}

type slice struct {
	Metadata    meta
	AddressType string
	Ports       []struct {
		Name, Protocol string
		Port           int
	}
	Endpoints []struct {
		Addresses  []string
		Conditions struct{ Ready *bool }
	}
}

type api struct {
	url, token string
	client     *http.Client
}

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	url := flag.String("api-server", "", "address of the API server; left out, that of the pod's own cluster")
	nft := flag.String("nft", "nft", "program that loads rules from its standard input")
	root := flag.String("root", "", "folder that is the root of that program, such as the node's own")
	flag.Parse()

	server, err := connect(*url)
	if err != nil {
		log.Fatalf("failed to find the API server: %v", err)
	}
	changed := make(chan struct{}, 1)
	go server.watch("/api/v1/services", notOurs, changed)
	go server.watch("/apis/discovery.k8s.io/v1/endpointslices", notOurs, changed)

	written := ""
	for range changed {
		table, err := server.table()
		if err == nil && table != written {
			err = load(*nft, *root, table)
		}
		if err != nil {
			log.Printf("failed to sync: %v", err)
			time.Sleep(retry)
			signal(changed)
			continue
		}
		written = table
		time.Sleep(pause)
	}
}

// connect finds the API server: the one that was named, or that of the pod's own cluster.
func connect(url string) (*api, error) {
	if url != "" {
		return &api{url: url, client: http.DefaultClient}, nil
	}
	token, err := os.ReadFile(account + "token")
	if err != nil {
		return nil, err
	}
	certificate, err := os.ReadFile(account + "ca.crt")
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certificate)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	return &api{
		url:    "https://" + net.JoinHostPort(host, port),
		token:  strings.TrimSpace(string(token)),
		client: &http.Client{Transport: transport},
	}, nil
}

func (a *api) get(path, query string) (*http.Response, error) {
	request, err := http.NewRequest(http.MethodGet, a.url+path+"?"+query, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	if a.token != "" {
		request.Header.Set("Authorization", "Bearer "+a.token)
	}
	response, err := a.client.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		response.Body.Close()
		return nil, fmt.Errorf("%s: %s", path, response.Status)
	}
	return response, nil
}

// watch tells when objects have changed, for as long as the program runs.
func (a *api) watch(path, labels string, changed chan<- struct{}) {
	for {
		response, err := a.get(path, "watch=true&labelSelector="+labels)
		if err == nil {
			lines := bufio.NewReader(response.Body)
			for err == nil {
				// What has changed does not matter: everything is read again.
				_, err = lines.ReadBytes('\n')
				signal(changed)
			}
			response.Body.Close()
		}
		if err != io.EOF {
			log.Printf("failed to watch %s: %v", path, err)
		}
		time.Sleep(retry)
	}
}

func signal(changed chan<- struct{}) {
	select {
	case changed <- struct{}{}:
	default:
	}
}

// list reads all objects of a kind.
func list[T any](a *api, path, labels string) ([]T, error) {
	response, err := a.get(path, "labelSelector="+labels)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var found struct{ Items []T }
	return found.Items, json.NewDecoder(response.Body).Decode(&found)
}

// table gives the rules for all Services there are now.
func (a *api) table() (string, error) {
	services, err := list[service](a, "/api/v1/services", notOurs)
	if err != nil {
		return "", err
	}
	slices, err := list[slice](a, "/apis/discovery.k8s.io/v1/endpointslices", notOurs)
	if err != nil {
		return "", err
	}

	var forward, refuse, hairpin []string
	for _, service := range services {
		ip := service.Spec.ClusterIP
		if service.Spec.Type == "ExternalName" || ip == "" || ip == "None" || strings.Contains(ip, ":") {
			continue
		}
		for _, port := range service.Spec.Ports {
			if port.Protocol != "TCP" {
				continue
			}
			frontend := fmt.Sprintf("ip daddr %s tcp dport %d", ip, port.Port)
			endpoints := ready(slices, service.Metadata, port.Name)
			if len(endpoints) == 0 {
				refuse = append(refuse, frontend+" reject with icmp port-unreachable")
				continue
			}
			var choices []string
			for i, endpoint := range endpoints {
				choices = append(choices, fmt.Sprintf("%d : %s", i, endpoint))
				pod, _, _ := strings.Cut(endpoint, " ")
				hairpin = append(hairpin, fmt.Sprintf("ip saddr %s ip daddr %s masquerade", pod, pod))
			}
			forward = append(forward, fmt.Sprintf("%s dnat ip to numgen random mod %d map { %s }",
				frontend, len(endpoints), strings.Join(choices, ", ")))
		}
	}
	return render(forward, refuse, hairpin), nil
}

// ready gives the endpoints of a Service's port that take traffic, as `address . port`.
func ready(slices []slice, of meta, port string) []string {
	found := map[string]bool{}
	for _, slice := range slices {
		if slice.Metadata.Namespace != of.Namespace || slice.Metadata.Labels[serviceName] != of.Name ||
			slice.AddressType != "IPv4" {
			continue
		}
		for _, target := range slice.Ports {
			if target.Name != port || target.Protocol != "TCP" || target.Port == 0 {
				continue
			}
			for _, endpoint := range slice.Endpoints {
				// No condition means ready.
				if len(endpoint.Addresses) > 0 && (endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready) {
					found[fmt.Sprintf("%s . %d", endpoint.Addresses[0], target.Port)] = true
				}
			}
		}
	}
	var all []string
	for endpoint := range found {
		all = append(all, endpoint)
	}
	sort.Strings(all)
	return all
}

func render(forward, refuse, hairpin []string) string {
	sort.Strings(forward)
	sort.Strings(refuse)
	sort.Strings(hairpin)
	chain := func(name, hook string, rules []string) string {
		var unique []string
		for i, rule := range rules {
			if i == 0 || rule != rules[i-1] {
				unique = append(unique, rule)
			}
		}
		return fmt.Sprintf("\tchain %s {\n\t\t%s\n\t\t%s\n\t}\n", name, hook, strings.Join(unique, "\n\t\t"))
	}
	return "add table ip minimal-proxy\ndelete table ip minimal-proxy\ntable ip minimal-proxy {\n" +
		chain("from-others", "type nat hook prerouting priority -100;", forward) +
		chain("from-here", "type nat hook output priority -100;", forward) +
		chain("refuse-others", "type filter hook forward priority 0;", refuse) +
		chain("refuse-here", "type filter hook output priority 0;", refuse) +
		chain("hairpin", "type nat hook postrouting priority 100;", hairpin) +
		"}\n"
}

// load replaces the table in one transaction.
func load(nft, root, table string) error {
	command := exec.Command(nft, "-f", "-")
	if root != "" {
		command.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
		command.Dir = "/"
	}
	command.Stdin = strings.NewReader(table)
	output, err := command.CombinedOutput()
	if err != nil {
		return fmt.Errorf("nft: %w: %s", err, output)
	}
	log.Printf("loaded %d lines", strings.Count(table, "\n"))
	return nil
}
