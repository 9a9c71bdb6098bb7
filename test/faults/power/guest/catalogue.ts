import { join } from 'node:path'
import { openCatalogue } from '../../../../catalogue/open.ts'
import { parseVolumeInfo } from '../../../../cluster/volume-state.ts'
import { type ReplicaId, type SrId, type StoreId, type VolumeKey } from '../../../../core/units.ts'
import { volumeInfoKey, volumesPrefix } from '../../../../cluster/keys.ts'
import { changeOf, itemIn, numberIn, slotsText, textOf, uuidOf } from '../items.ts'
import { type OpenWorkload } from './workload.ts'

const SR = uuidOf(1) as SrId
const STORE = uuidOf(2) as StoreId

const keyOf = (slot: number): string => volumeInfoKey(SR, uuidOf(slot) as VolumeKey)

/**
 * xosand's catalogue. `records`: what the follower writes, each item one revision of the coordinator; `register`: the
 * register of local replicas.
 */
export const openWorkload: OpenWorkload = async directory => {
  const { catalogue, damaged } = openCatalogue(join(directory, 'state', 'catalogue.sqlite'))
  // It would be filled anew. But a disk that keeps its word leaves no damage, so this is worth to be told.
  if (damaged !== null) throw new Error(`the catalogue was found damaged: ${damaged.reason}`)
  return {
    standing: async () => {
      const records = catalogue.records.list(volumesPrefix(SR)).map(({ key, value }): [number, number] => {
        const { name, description } = parseVolumeInfo(key, value)
        return [Number(name), itemIn('records', description)]
      })
      const register = catalogue.localReplicas
        .list()
        .map(({ replica, volume }): [number, number] => [numberIn(replica), numberIn(volume)])
      return {
        records: slotsText(new Map(records), catalogue.position().revision),
        register: slotsText(new Map(register), null),
      }
    },
    write: async (chain, item) => {
      if (chain === 'register') {
        const { put, removed } = changeOf('steps', item)
        if (removed !== null) catalogue.localReplicas.forget(uuidOf(removed) as ReplicaId)
        if (put === null) return
        const [replica, volume] = [uuidOf(put) as ReplicaId, uuidOf(item) as VolumeKey]
        catalogue.localReplicas.remember({ replica, sr: SR, volume, store: STORE })
        return
      }
      const { put, removed } = changeOf('slots', item)
      const info = { version: 1, name: String(put), description: textOf('records', item), keys: {} }
      const events = [{ key: keyOf(put!), value: JSON.stringify(info) }]
      const gone = removed === null ? [] : [{ key: keyOf(removed), value: null }]
      catalogue.apply([{ revision: item, events: [...events, ...gone] }])
    },
  }
}
