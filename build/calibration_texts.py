"""Texts that int8 is calibrated on: ours, written for this purpose, mixed by a seed.

They show the encoder what activations look like: many domains, registers, languages,
code, lists and noise, from one word to the model's limit. They must never be used to judge
quality: the gate has texts of its own (`quality_texts`), and benchmarks have theirs.
"""

from __future__ import annotations

import random
import re

SEED = 20261121

_SENTENCES = """
The harbour was quiet except for gulls and the slow knock of a boat against its fender.
Interest rates rose by a quarter of a point, and bond prices fell within minutes.
Preheat the oven to 180 degrees, butter the tin, and fold the egg whites in gently.
The patient reported chest pain radiating to the left arm and shortness of breath.
Under section four the tenant shall give the landlord sixty days' written notice.
A prime number has exactly two divisors, which is why one is not counted among them.
Mitochondria turn nutrients into the energy that most cells spend.
She scored twice in the second half and was named player of the match.
Please reset my password; the link in the mail you sent expired yesterday.
The king refused the treaty, and by spring both armies stood at the river.
Our return policy allows exchanges within thirty days if the seal is unbroken.
Neural networks approximate functions by composing linear maps and nonlinearities.
The train from platform nine is delayed by approximately twenty-five minutes.
He tuned the old radio until a violin came through the static.
Glaciers carve valleys with a flat floor and steep walls.
How do I connect a second monitor to a laptop with only one port?
What is the difference between a virus and a bacterium?
Best hiking boots for wide feet under one hundred dollars
Symptoms of low iron in teenagers
Why does bread rise when yeast is added to the dough?
I waited forty minutes for a cold burger; never again.
Absolutely love this lamp, the light is warm and the switch feels solid.
The battery lasts two days but the screen scratches if you look at it wrong.
Congratulations on the new job! Let's have lunch on Thursday to celebrate.
Meeting moved to 3 pm, room B, bring the budget draft.
Photosynthesis takes in carbon dioxide and water and gives off oxygen.
The court held that the search was unreasonable and excluded the evidence.
Tighten the bolts in a star pattern to 90 newton metres, then check again.
The orchestra will perform two symphonies and a new work for strings.
Rainfall this month was less than half the average of the last thirty years.
Unemployment fell in eleven of the sixteen regions surveyed.
The vaccine lowered the risk of severe disease by ninety-one per cent.
Volcanic ash closed the airport and stranded eight thousand travellers.
A hash table stores each key in a bucket chosen by a function of the key.
To list all files, including hidden ones, pass the option -a.
The connection was reset by the peer while the response was being read.
def area(radius): return 3.14159 * radius ** 2
for (int i = 0; i < n; i++) { total += values[i]; }
SELECT name, COUNT(*) FROM orders WHERE paid = TRUE GROUP BY name;
if err != nil { return fmt.Errorf("open %s: %w", path, err) }
import json, sys; print(json.load(sys.stdin)["result"][0])
{"id": 4711, "status": "shipped", "items": [{"sku": "A-19", "qty": 2}]}
2024-03-08T11:42:07Z WARN retrying request attempt=3 delay=1.6s
ERROR 500 at /api/v2/users: NullPointerException in UserService.java:218
<p class="note">Only three seats left at this price.</p>
git commit -m "fix: close the file before renaming it"
The function returns -1 if the element is not present in the array.
x^2 + 5x + 6 = (x + 2)(x + 3)
https://example.org/a/b?page=2&sort=asc
Call 555-0142 between 9:00 and 17:30, Monday to Friday.
ISBN 978-0-00-000000-2, 312 pages, hardcover, 24.90 EUR
The parliament adopted the regulation by 412 votes to 187.
Migrating birds steer by the stars, the sun and the earth's magnetic field.
The painting shows a kitchen maid pouring milk in the light of a window.
Insulin is released by the pancreas when blood sugar rises.
The startup raised twelve million to build sensors for greenhouses.
Soak the beans overnight, discard the water, and simmer for an hour with bay leaf.
The novel follows three sisters through a single day in a provincial town.
Copper conducts heat better than steel and therefore warms evenly.
Plate tectonics explains why earthquakes cluster along narrow belts.
The referee stopped play when lightning was seen beyond the stadium.
Applicants must hold a valid licence and five years of experience.
The museum is closed on Mondays and on the first of January.
Gravity bends light, so a distant galaxy can appear twice.
The child asked whether fish ever get thirsty, and nobody knew.
Shares of the airline dropped after fuel costs were revised upwards.
My grandmother kept buttons in a biscuit tin painted with windmills.
Der Zug nach Hamburg fährt heute von Gleis sieben ab.
Die Katze schläft den ganzen Nachmittag auf der warmen Fensterbank.
Le marché ouvre à huit heures et ferme au milieu de l'après-midi.
Nous avons réservé une table pour quatre personnes près de la fenêtre.
El río creció tanto que el puente quedó cerrado durante tres días.
¿Dónde puedo comprar un billete para el autobús nocturno?
Il gatto del vicino entra dalla finestra ogni mattina alle sei.
A reunião foi adiada porque metade da equipe está doente.
Den gamla bron byggdes om efter översvämningen.
Książka leży na stole obok filiżanki z herbatą.
Поезд прибывает на третий путь через десять минут.
今日は天気がいいので、公園を散歩しました。
这家餐厅的面条很好吃,但是要等很久。
오늘 회의는 오후 세 시에 시작합니다.
المكتبة مفتوحة كل يوم حتى الساعة الثامنة مساء.
घर के पीछे एक छोटा सा बगीचा है।
ok thanks!! see u tmrw :)
LOL that meme again... who even posts this stuff
#budget #travel 10 tips for cheap flights
yes
no, not really
budget
quantum entanglement
coffee grinder
tax return deadline
The committee recommends that the proposal be revised and submitted again in autumn.
Each node keeps a log; a leader is elected when a majority of votes arrives.
A lease of less than a year need not be registered.
Turn left at the church, follow the wall, and you will see the gate.
The enzyme binds its substrate in a pocket that closes like a hand.
Wind turbines off the coast supplied a third of the city's power last winter.
In chess, castling moves the king two squares towards a rook.
The lecture covers Fourier series, convergence, and the heat equation.
Stir until the sugar dissolves; the syrup should coat the back of a spoon.
The witness said the van was white, or perhaps a very pale grey.
Customers in the northern region complained about late deliveries.
Whales were once land animals with hooves, as their ankle bones show.
The gene is switched off in most adults, but not in some herding peoples.
Please find attached the invoice for March; payment is due within fourteen days.
Sand, cement, gravel and water: the order and the ratio both matter.
After the merger the company closed two plants and opened a research centre.
The comet returns every seventy-six years, faint to the eye but bright in a telescope.
To reset the device, hold the power button for ten seconds and release it.
The poem rhymes in couplets except for its last, broken line.
Urban trees lower summer temperatures and soak up heavy rain.
"""

_WORD = re.compile(r"[\w'-]{2,}")
_ENDS = (" ", " ", " ", "\n", "\n\n", " - ", "; ")


_DOCUMENTS = 240
_PHRASES = 1000
_FEW_WORDS = 1500
_FOREIGN = 0.4
"""Share of a phrase's words that others take the place of."""


def calibration_texts(seed: int = SEED) -> list[str]:
    """Documents of one to about forty sentences, phrases of some words, and two to four words.

    The same for the same seed. Short texts are many because they are few tokens each: what a
    layer sees of a single word differs from what it sees of a page. Calibrated on pages alone,
    words are twice as far off as sentences (MiniLM: 1 - cosine 0.0019 and 0.0009; with these texts
    0.0014 and 0.0008).
    """
    draw = random.Random(seed)  # noqa: S311 - repeatable, not secret
    sentences = [line for line in _SENTENCES.strip().splitlines() if line]
    words = sorted({word for line in sentences for word in _WORD.findall(line)})
    texts = list(sentences)
    while len(texts) < _DOCUMENTS:
        length = min(40, 1 + int(draw.expovariate(1 / 5)))
        chosen = [draw.choice(sentences) for _ in range(length)]
        texts.append("".join(s + draw.choice(_ENDS) for s in chosen).strip())
    texts += [_phrase(draw, draw.choice(sentences).split(), words) for _ in range(_PHRASES)]
    texts += [" ".join(draw.choices(words, k=draw.randint(2, 4))) for _ in range(_FEW_WORDS)]
    draw.shuffle(texts)
    return texts


def _phrase(draw: random.Random, sentence: list[str], words: list[str]) -> str:
    """Three to fourteen words of `sentence`, some of them replaced."""
    length = draw.randint(3, 14)
    start = draw.randrange(max(1, len(sentence) - length + 1))
    cut = sentence[start : start + length]
    return " ".join(draw.choice(words) if draw.random() < _FOREIGN else word for word in cut)
