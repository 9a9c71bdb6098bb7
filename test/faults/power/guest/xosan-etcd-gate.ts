/** The gate before etcd is a process of its own here, too. */
import '../../../../daemon/etcd/gate-main.ts'
