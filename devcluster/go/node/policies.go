package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
)

// enforcePolicies judges the first packet of each connection that the kernel puts into the queue, by the cluster's
// NetworkPolicies. What is put there is for whoever starts it to say: upstream's own rules need nft_queue, which not
// every kernel has.
func enforcePolicies() int {
	kubeconfig := flag.String("kubeconfig", "", "how the API server is reached")
	name := flag.String("node", "", "name of the node")
	queue := flag.Int("queue", 0, "number of the netfilter queue")
	flag.Parse()
	stopped, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := judgePackets(stopped, *kubeconfig, *name, *queue); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func judgePackets(stopped context.Context, kubeconfig, name string, queue int) error {
	access, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(access)
	if err != nil {
		return err
	}
	known := informers.NewSharedInformerFactory(client, 0)
	controller, err := networkpolicy.NewController(
		client,
		known.Networking().V1().NetworkPolicies(),
		known.Core().V1().Namespaces(),
		known.Core().V1().Pods(),
		nil, nil, nil, nil,
		networkpolicy.Config{NodeName: name, QueueID: queue},
	)
	if err != nil {
		return err
	}
	known.Start(stopped.Done())
	return controller.Run(stopped)
}
