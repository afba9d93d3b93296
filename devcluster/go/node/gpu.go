package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const socketName = "devcluster-gpu.sock"

// gpus is a device plugin for devices that exist in name only: the scheduler counts them as it counts real ones.
type gpus struct {
	pluginapi.UnimplementedDevicePluginServer
	devices []*pluginapi.Device
}

func (g *gpus) GetDevicePluginOptions(context.Context, *pluginapi.Empty) (*pluginapi.DevicePluginOptions, error) {
	return &pluginapi.DevicePluginOptions{}, nil
}

// ListAndWatch names the devices once; they never change, so the stream then only stays open.
func (g *gpus) ListAndWatch(_ *pluginapi.Empty, stream grpc.ServerStreamingServer[pluginapi.ListAndWatchResponse]) error {
	if err := stream.Send(&pluginapi.ListAndWatchResponse{Devices: g.devices}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

// Allocate has nothing to hand to a container: there is no device file behind the name.
func (g *gpus) Allocate(_ context.Context, request *pluginapi.AllocateRequest) (*pluginapi.AllocateResponse, error) {
	response := &pluginapi.AllocateResponse{}
	for range request.ContainerRequests {
		response.ContainerResponses = append(response.ContainerResponses, &pluginapi.ContainerAllocateResponse{})
	}
	return response, nil
}

// advertiseGPUs serves the plugin for as long as the node lives. A kubelet that starts empties the plugins' folder
// and forgets them, so a vanished socket means: serve and register again.
func advertiseGPUs() int {
	resource := flag.String("resource", "nvidia.com/gpu", "the extended resource to advertise")
	count := flag.Int("count", 1, "how many of it the node has")
	flag.Parse()

	plugin := &gpus{}
	for i := range *count {
		plugin.devices = append(plugin.devices, &pluginapi.Device{ID: fmt.Sprintf("devcluster-%d", i), Health: pluginapi.Healthy})
	}
	for {
		err := plugin.serve(*resource)
		fmt.Fprintf(os.Stderr, "%s gpu-device-plugin: %v; trying again\n", time.Now().Format(time.DateTime), err)
		time.Sleep(time.Second)
	}
}

// serve returns when the kubelet has removed the socket, or when it cannot be reached.
func (g *gpus) serve(resource string) error {
	socket := filepath.Join(pluginapi.DevicePluginPath, socketName)
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	pluginapi.RegisterDevicePluginServer(server, g)
	go server.Serve(listener)
	defer server.Stop()

	if err := register(resource); err != nil {
		return err
	}
	fmt.Printf("registered %d x %s\n", len(g.devices), resource)
	for {
		if _, err := os.Stat(socket); err != nil {
			return fmt.Errorf("the kubelet started anew (%w)", err)
		}
		time.Sleep(time.Second)
	}
}

func register(resource string) error {
	kubelet, err := grpc.NewClient("unix://"+pluginapi.KubeletSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer kubelet.Close()
	deadline, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err = pluginapi.NewRegistrationClient(kubelet).Register(deadline, &pluginapi.RegisterRequest{
		Version:      pluginapi.Version,
		Endpoint:     socketName,
		ResourceName: resource,
	})
	return err
}
