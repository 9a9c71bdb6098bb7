import { type Wait } from '../../core/mirror/waits.ts'
import { type HostId } from '../../core/units.ts'

/**
 * What a volume waits for in words, with what to do next, if anything.
 *
 * @param nameOf a host as people know it
 */
export function sentenceOf(wait: Wait, nameOf: (host: HostId) => string): string {
  switch (wait.for) {
    case 'replica':
      return wait.othersLost
        ? `The other replicas have lost writes, and the one on host ${nameOf(wait.host)}, which may hold them, is away (${wait.reason}). Start that host, or make it reachable.`
        : `The replica on host ${nameOf(wait.host)} is needed and away (${wait.reason}). It goes on when that host is back; start it, or make it reachable.`
    case 'disk':
      return wait.isFull
        ? `The disk of host ${nameOf(wait.host)} is full, and no other replica in-sync has space (${wait.reason}) What fits goes on; the rest does when space is freed: delete volumes that are not needed, or add a disk.`
        : `The disk of host ${nameOf(wait.host)} fails, and no other replica in-sync can help (${wait.reason}) Everything else goes on. Bring a host with another replica back, or restore what was there.`
    case 'promise':
      return `Heartbeats to host ${nameOf(wait.host)} are not answered, so its replica cannot be relied upon. It goes on when they are; if this lasts, look at the network between the two hosts.`
    case 'end-of-promise': {
      const holder = wait.holder === null ? 'the primary of before' : `host ${nameOf(wait.holder)}`
      return `Host ${nameOf(wait.host)} still keeps the volume for ${holder}, for ${(wait.remainingMs / 1000).toFixed(1)} s if that is dead. If it is not, stop the VM there first.`
    }
    case 'coordinator':
      return `The volume's record has to be changed, and the coordinator does not do it (${wait.reason}). It goes on when the coordinator answers; see \`xosan status\`.`
    case 'reconcile':
      return `After a takeover ${wait.regions} regions are compared before they are read. It goes on by itself.`
    case 'deactivation': {
      const primary = wait.primary === null ? 'Another host' : `Host ${nameOf(wait.primary)}`
      return `${primary} has taken the volume. A VM that still runs here with it has lost its disk: shut that VM down here.`
    }
  }
}
