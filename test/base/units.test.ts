import test from 'ava'
import { nearestName } from '../../src/base/nearest-name.ts'
import { byteUnit, countUnit, cpuUnit, durationUnit, rateUnit } from '../../src/base/units.ts'

test('amounts with their units are read exactly', (t) => {
  t.is(cpuUnit.parse('200m'), 200)
  t.is(cpuUnit.parse('0.2'), 200)
  t.is(cpuUnit.parse('1'), 1000)
  t.is(cpuUnit.parse('2.5'), 2500)
  t.is(byteUnit.parse('64MiB'), 64 * 1024 * 1024)
  t.is(byteUnit.parse('1.5GiB'), 1536 * 1024 * 1024)
  t.is(byteUnit.parse('500MB'), 500_000_000)
  t.is(byteUnit.parse('0'), 0)
  t.is(rateUnit.parse('1Mbps'), 1_000_000)
  t.is(rateUnit.parse('0.5Gbps'), 500_000_000)
  t.is(durationUnit.parse('90s'), 90_000)
  t.is(durationUnit.parse('7d'), 604_800_000)
  t.is(countUnit.parse('64'), 64)
})

test('amounts without a unit, with an unknown one, or finer than the smallest are refused', (t) => {
  for (const text of [
    '64',
    '64mib',
    '64 MiB',
    '-1MiB',
    '1e3MiB',
    '',
    'MiB',
    '0.3B',
    '1MiBps',
    '9999999TiB'
  ]) {
    t.is(byteUnit.parse(text), undefined, text)
  }
  for (const text of ['0.0001', '1.2m', '200M', 'm', '.5', '5.', '١'])
    t.is(cpuUnit.parse(text), undefined, text)
  for (const text of ['1', '1mbps', '1Mb', '1MiB']) t.is(rateUnit.parse(text), undefined, text)
  for (const text of ['1', '1h30m', '1w', '1H']) t.is(durationUnit.parse(text), undefined, text)
  for (const text of ['1.5', '-1', '1m']) t.is(countUnit.parse(text), undefined, text)
})

test('amounts are printed short', (t) => {
  t.is(byteUnit.format(64 * 1024 * 1024), '64MiB')
  t.is(byteUnit.format(1536 * 1024 * 1024), '1.5GiB')
  t.is(byteUnit.format(0), '0')
  t.is(rateUnit.format(10_000_000), '10Mbps')
  t.is(cpuUnit.format(200), '200m')
  t.is(durationUnit.format(90_000), '1.5m')
  t.is(durationUnit.format(120), '120ms')
})

test('a misspelt name finds the one that was meant, and a strange one none', (t) => {
  t.is(nearestName('memmory', ['memory', 'disk']), 'memory')
  t.is(nearestName('cpumax', ['cpu', 'cpuMax']), 'cpuMax')
  t.is(nearestName('potato', ['memory', 'disk']), undefined)
  t.is(nearestName('', ['cpu']), undefined)
})
