"""Values that turn every option of every chart on, a few sets a chart where options exclude one another; a test keeps them complete."""

from __future__ import annotations

from typing import Any

Values = dict[str, Any]

DIGEST = "sha256:" + "0123456789abcdef" * 4
PLACED: Values = {
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "pool", "operator": "Equal", "value": "second", "effect": "NoSchedule"}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}]}]
            }
        }
    },
    "priorityClassName": "system-cluster-critical",
}
RESOURCES: Values = {
    "requests": {"cpu": "30m", "memory": "200Mi"},
    "limits": {"cpu": 1, "memory": "1500Mi", "ephemeral-storage": "1Gi"},
}
IMAGE: Values = {"repository": "registry.example/tips/thing", "tag": "1.2.3", "digest": DIGEST, "pullPolicy": "Always"}
ENV = [
    {"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"},
    {"name": "SOME_SECRET", "valueFrom": {"secretKeyRef": {"name": "extra", "key": "value"}}},
]
COMMON: Values = {
    "imagePullSecrets": ["one", {"name": "two"}],
    "runAsUser": 1000660000,
    "test": {"image": IMAGE, "resources": RESOURCES},
    **PLACED,
}
TO_ANYWHERE = [{"ports": [{"port": 8443, "protocol": "TCP"}], "to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]
FROM_ANYWHERE = [{"ports": [{"port": "http"}], "from": [{"namespaceSelector": {"matchLabels": {"team": "tips"}}}]}]
BALANCED: Values = {
    "type": "LoadBalancer",
    "annotations": {"example.com/scheme": "internal"},
    "loadBalancerClass": "example.com/internal",
    "loadBalancerSourceRanges": ["10.0.0.0/8"],
}
ON_NODES: Values = {"type": "NodePort", "port": 9000}
INGRESS: Values = {
    "enabled": True,
    "className": "nginx",
    "annotations": {"nginx.ingress.kubernetes.io/proxy-read-timeout": "120"},
    "hosts": ["tips.example.com", "*.tips.example.com"],
    "tlsSecret": "tips-tls",
}
POSTGRESQL: Values = {
    "image": {"repository": "registry.example/postgres", "tag": "17", "digest": DIGEST, "pullPolicy": "Never"},
    "existingSecret": "database",
    "settings": {"shared_buffers": "128MB", "max_connections": 50},
    "resources": RESOURCES,
    "persistence": {"size": "3Gi", "storageClass": "fast"},
}

OPTIONS: dict[str, dict[str, Values]] = {
    "ollama": {
        "all": {
            **COMMON,
            "replicas": 3,
            "image": IMAGE,
            "memory": "6Gi",
            "cpu": {"request": "1", "limit": "4"},
            "extraLimits": {"nvidia.com/gpu": 1},
            "runtimeClassName": "nvidia",
            "keepAlive": "30s",
            "extraEnv": ENV,
            "models": {
                "tags": ["qwen2.5:0.5b", "hf.co/org/model-GGUF:Q4_K_M"],
                "maxModelB": 3.5,
                "image": IMAGE,
                "numCtx": 4096,
                "memory": {"hf.co/org/model-GGUF:Q4_K_M": "5Gi"},
                "retries": 2,
                "resources": RESOURCES,
            },
            "memoryMeter": {"enabled": True, "image": IMAGE, "resources": RESOURCES},
            "persistence": {"size": "5Gi", "storageClass": "fast", "accessMode": "ReadWriteOncePod"},
            "service": {**BALANCED, "port": 8080, "nodePort": 31434},
            "networkPolicy": {
                "pullPorts": [443, 8080],
                "extraIngress": FROM_ANYWHERE,
                "extraEgress": TO_ANYWHERE,
            },
            "podDisruptionBudget": {"enabled": True},
        },
        "off": {
            "runAsUser": None,
            "models": {"tags": []},
            "memory": "2Gi",
            "memoryMeter": {"enabled": False},
            "networkPolicy": {"enabled": False, "allowPull": False},
            "podDisruptionBudget": {"enabled": False},
            "service": ON_NODES,
        },
    },
    "mlflow": {
        "all": {
            **COMMON,
            "image": IMAGE,
            "staticPrefix": "/tools/mlflow",
            "workers": 3,
            "allowedHosts": ["10.1.2.3:5000"],
            "allowedOrigins": ["https://tools.example.com"],
            "extraEnv": ENV,
            "resources": RESOURCES,
            "auth": {
                "enabled": True,
                "existingSecret": "login",
                "existingSessionSecret": "session",
                "defaultPermission": "EDIT",
            },
            "postgresql": POSTGRESQL,
            "artifacts": {
                "s3": {
                    "bucket": "tips",
                    "prefix": "runs",
                    "endpoint": "http://minio.storage:9000",
                    "region": "eu-central-1",
                    "existingSecret": "s3",
                }
            },
            "serviceAccount": {"name": "cloud"},
            "service": {**BALANCED, "port": 8080, "nodePort": 31500},
            "ingress": INGRESS,
            "networkPolicy": {"extraIngress": FROM_ANYWHERE, "extraEgress": TO_ANYWHERE},
        },
        "external": {
            "runAsUser": None,
            "postgresql": {"enabled": False},
            "externalDatabase": {"existingSecret": "own", "key": "url"},
            "persistence": {"size": "3Gi", "storageClass": "fast"},
            "auth": {"enabled": True},
            "networkPolicy": {"enabled": False},
            "service": ON_NODES,
        },
        "sqlite": {"postgresql": {"enabled": False}, "persistence": {"existingClaim": "mine"}},
    },
    "airflow": {
        "all": {
            **COMMON,
            "image": IMAGE,
            "baseUrl": "https://airflow.example.com",
            "parallelism": 3,
            "heartbeatTimeout": 90,
            "models": "a:1b,b:2b",
            "extraEnv": ENV,
            "apiServer": {"replicas": 2, "workers": 2, "resources": RESOURCES},
            "scheduler": {"resources": RESOURCES},
            "dagProcessor": {"resources": RESOURCES},
            "triggerer": {"resources": RESOURCES},
            "setup": {"retries": 3, "resources": RESOURCES},
            "admin": {"existingSecret": "login"},
            "keys": {"existingSecret": "keys"},
            "ollama": {"release": "models", "replicas": 3},
            "mlflow": {"url": "https://mlflow.example.com/mlflow", "existingSecret": "mlflow-login"},
            "tipbench": {"release": "tips"},
            "stages": {"repository": "registry.example/tips", "tag": "1.2.3", "judgeSecret": "openai"},
            "pool": {"name": "models", "slots": 2},
            "kubernetesConnection": {"sidecarResources": RESOURCES},
            "logs": {"persistence": {"size": "2Gi", "storageClass": "shared", "accessMode": "ReadWriteMany"}},
            "postgresql": POSTGRESQL,
            "service": {**BALANCED, "port": 9090, "nodePort": 31080},
            "ingress": INGRESS,
            "networkPolicy": {
                "kubernetesApiPorts": [6443],
                "kubernetesApiCidrs": ["10.96.0.1/32", "172.18.0.2/32"],
                "extraIngress": FROM_ANYWHERE,
                "extraEgress": TO_ANYWHERE,
            },
        },
        "external": {
            "runAsUser": None,
            "admin": {"username": "ada"},
            "ollama": {"url": "http://gpu.example:11434"},
            "postgresql": {"enabled": False},
            "externalDatabase": {"existingSecret": "own", "key": "url"},
            "logs": {"persistence": {"enabled": False}},
            "networkPolicy": {"enabled": False},
            "service": ON_NODES,
        },
        "claim": {"logs": {"persistence": {"existingClaim": "mine"}}},
    },
    "tipbench": {
        "all": {
            **COMMON,
            "runtimeClassName": "gvisor",
            "config": {
                "models": "a:1b,b:2b",
                "prompts": "v1",
                "n_tips": 3,
                "n_scenarios": 2,
                "temperature": 0.2,
                "experiment": "tip-bench-" + "with-a-name-that-is-far-too-long-for-a-label_" + "x" * 40,
                "max_model_b": 3.5,
                "ollama_url": "http://gpu.example:11434",
                "mlflow_url": "https://mlflow.example.com/mlflow",
                "seed": 7,
                "num_predict": 100,
                "num_ctx": 1048576,
                "num_thread": 4,
                "parallel": 2,
                "keep_alive": "30s",
                "memory_limit": "6Gi",
                "pull": True,
                "engine": "openai",
                "engine_url": "http://vllm.models:8000/v1",
                "parameters": "ours=1.5b",
                "notify_url": "https://chat.example.com/hooks/abc",
            },
            "catalog": {"configMap": "texts", "scenarios": "ours.yaml", "rubric": "rubric.yaml", "prompts": True},
            "ollama": {"release": "models", "replicas": 3, "slots": 4, "existingSecret": "ollama-key"},
            "mlflow": {
                "url": "https://mlflow.example.com/mlflow",
                "publicUrl": "https://mlflow.example.com/mlflow",
                "existingSecret": "mlflow-login",
            },
            "airflow": {
                "url": "https://airflow.example.com",
                "publicUrl": "https://airflow.example.com",
                "existingSecret": "airflow-login",
            },
            "api": {
                "replicas": 2,
                "image": IMAGE,
                "existingSecret": "tokens",
                "rootPath": "/tools/tipbench",
                "trustedProxies": "10.0.0.0/8, 192.0.2.1",
                "extraEnv": ENV,
                "resources": RESOURCES,
            },
            "service": {**BALANCED, "port": 9000, "nodePort": 31800},
            "ingress": INGRESS,
            "stages": {
                "repository": "registry.example/tips",
                "tag": "1.2.3",
                "pullPolicy": "Always",
                "retries": 5,
                "podLabels": {"team": "tips"},
                "podAnnotations": {"sidecar.istio.io/inject": "false"},
                "compare": {"digest": DIGEST, "extraEnv": ENV, "resources": RESOURCES},
                "collect": {"digest": DIGEST, "existingSecret": "vllm", "extraEnv": ENV, "resources": RESOURCES},
                "export": {"digest": DIGEST, "for": "manual", "extraEnv": ENV, "resources": RESOURCES},
                "judge": {
                    "digest": DIGEST,
                    "with": "openai:small",
                    "existingSecret": "openai",
                    "extraEnv": ENV,
                    "resources": RESOURCES,
                },
            },
            "exchange": {"size": "3Gi", "storageClass": "shared", "accessMode": "ReadWriteMany"},
            "policy": {"maxMemory": "12Gi"},
            "quota": {
                "hard": {"limits.memory": "32Gi", "requests.memory": "24Gi", "pods": "50", "requests.storage": "90Gi"}
            },
            "limitRange": {"minMemory": "16Mi", "defaultCpuRequest": "20m", "maxStorage": "50Gi"},
            "networkPolicy": {
                "kubernetesApiPorts": [6443],
                "kubernetesApiCidrs": ["10.96.0.1/32"],
                "notifyPorts": [443, 8443],
                "extraIngress": FROM_ANYWHERE,
                "extraEgress": TO_ANYWHERE,
            },
        },
        "off": {
            "runAsUser": None,
            "api": {"enabled": False},
            "exchange": {"existingClaim": "mine"},
            "notify": {"existingSecret": "webhook"},
            "policy": {"enabled": False},
            "quota": {"enabled": False},
            "limitRange": {"enabled": False},
            "networkPolicy": {"enabled": False},
            "service": ON_NODES,
        },
    },
}
