"""Where an instance's parts answer and what opens them: for tests, the demo and `python -m devcluster env`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from devcluster import base_model, credentials, namespaces, s3, weaviate, wordpress
from devcluster.kubectl import Kubectl, tools_folder
from devcluster.paths import Instance


@dataclass(frozen=True, repr=False)
class Access:
    """Addresses and secrets of one instance. `repr` is left out: a traceback must not print the secrets."""

    kubeconfig: Path
    kubectl_cache: Path
    node_ip: str
    wordpress_url: str
    wordpress_user: str
    wordpress_app_password: str
    wordpress_admin_password: str
    weaviate_url: str
    weaviate_grpc: str
    weaviate_api_key: str
    weaviate_reader_api_key: str
    s3_endpoint: str
    s3_bucket: str
    s3_region: str
    s3_access_key: str
    s3_secret_key: str
    base_model_uri: str

    @property
    def kubectl(self) -> Kubectl:
        """kubectl with the administrator's rights."""
        return Kubectl(self.kubeconfig, self.kubectl_cache)

    def as_environment(self) -> dict[str, str]:
        """The same for a shell, under the names that the AWS and Kubernetes tools read where they have one."""
        return {
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECACHEDIR": str(self.kubectl_cache),
            "PATH": f"{tools_folder()}:{os.environ.get('PATH', '')}",
            "NODE_IP": self.node_ip,
            "WORDPRESS_URL": self.wordpress_url,
            "WORDPRESS_USER": self.wordpress_user,
            "WORDPRESS_APP_PASSWORD": self.wordpress_app_password,
            "WORDPRESS_ADMIN_PASSWORD": self.wordpress_admin_password,
            "WEAVIATE_URL": self.weaviate_url,
            "WEAVIATE_GRPC": self.weaviate_grpc,
            "WEAVIATE_API_KEY": self.weaviate_api_key,
            "WEAVIATE_READER_API_KEY": self.weaviate_reader_api_key,
            "S3_ENDPOINT": self.s3_endpoint,
            "S3_BUCKET": self.s3_bucket,
            "AWS_REGION": self.s3_region,
            "AWS_ACCESS_KEY_ID": self.s3_access_key,
            "AWS_SECRET_ACCESS_KEY": self.s3_secret_key,
            "BASE_MODEL_URI": self.base_model_uri,
        }


def access(instance: Instance) -> Access:
    """How to reach the instance, whether its parts run or not."""
    secret = credentials.load(instance)
    on_host = namespaces.running_keeper(instance) is None
    weaviate_http, weaviate_grpc = weaviate.addresses(instance)
    return Access(
        kubeconfig=instance.kubeconfig,
        kubectl_cache=instance.state / "kubectl-cache",
        node_ip=instance.node_ip,
        wordpress_url=wordpress.address("127.0.0.1" if on_host else instance.node_ip),
        wordpress_user=wordpress.USER,
        wordpress_app_password=secret.wordpress_application_password,
        wordpress_admin_password=secret.wordpress_admin_password,
        weaviate_url=weaviate_http,
        weaviate_grpc=weaviate_grpc,
        weaviate_api_key=secret.weaviate_api_key,
        weaviate_reader_api_key=secret.weaviate_reader_api_key,
        s3_endpoint=s3.address(instance),
        s3_bucket=s3.BUCKET,
        s3_region=s3.REGION,
        s3_access_key=secret.s3_access_key,
        s3_secret_key=secret.s3_secret_key,
        base_model_uri=base_model.URI,
    )
