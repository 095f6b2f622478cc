"""ALS factors of a log that no single machine holds, trained by Spark ML."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.ml.recommendation import ALS
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from encoders.errors import InputError
from retrieval.als import AlsConfig, AlsRetriever
from retrieval.cold_start import factors_from_texts
from retrieval.ids import IdMap


def fit_als(
    interactions: DataFrame,
    items: IdMap,
    config: AlsConfig,
    seed: int = 0,
    vectors: NDArray[np.float32] | None = None,
) -> AlsRetriever:
    """Train the ALS source on a cluster; what it answers on its factors is what it answers on any others.

    The confidence of each user and item is that of ``AlsRetriever.fit``, 1 + alpha · w summed over their positive
    events. Spark multiplies its penalty by how many items a user, or users an item, has (Zhou et al., AAIM 2008), so
    it is divided by how many items a user has on average here. Let it serve in an engine:

        engine.views = engine.views.over({"als": fit_als(events, engine.catalogue.ids, config.als)}, engine.views.until)

    Args:
        interactions: ``user_id, item_id, weight``; events on items that are not in the catalogue are passed over.
        items: The catalogue's ids.
        config: The settings.
        seed: Of the factors to start from.
        vectors: (I, dim) the items' text vectors, from which items that nobody took get their factors.

    Raises:
        InputError: A column is missing, or no positive event is on an item of the catalogue.
    """
    for name in ("user_id", "item_id", "weight"):
        if name not in interactions.columns:
            raise InputError(f"interactions: no column {name!r}; the columns are {', '.join(interactions.columns)}.")
    spark = interactions.sparkSession
    known = pa.table({"item_id": pa.array(items.ids), "item": pa.array(np.arange(len(items)), pa.int32())})
    liked = interactions.where("weight > 0").join(F.broadcast(spark.createDataFrame(known)), "item_id")
    counted = liked.groupBy("user_id", "item").agg(F.sum("weight").alias("weight"), F.count("*").alias("events"))
    # Spark's confidence is 1 + alpha · rating
    rating = F.col("weight") + (F.col("events") - 1) / F.lit(config.alpha)
    numbers = counted.select("user_id").distinct()
    schema = T.StructType([numbers.schema["user_id"], T.StructField("user", T.IntegerType())])
    users = spark.createDataFrame(numbers.rdd.zipWithIndex().map(lambda pair: (pair[0][0], pair[1])), schema)
    ratings = counted.join(users, "user_id").select("user", "item", rating.cast("float").alias("rating"), "events")
    ratings = ratings.persist()
    try:
        per_user = ratings.groupBy("user").count().agg(F.mean("count")).first()
        mean = None if per_user is None else per_user[0]
        if mean is None:
            raise InputError("interactions: no positive event is on an item of the catalogue. Check the ids of both.")
        model = ALS(
            rank=config.factors,
            maxIter=config.iterations,
            regParam=config.regularization / mean,
            implicitPrefs=True,
            alpha=config.alpha,
            userCol="user",
            itemCol="item",
            ratingCol="rating",
            seed=seed,
        ).fit(ratings)
        found = model.itemFactors.toArrow()
        events = ratings.groupBy("item").agg(F.sum("events").alias("events")).toArrow()
    finally:
        ratings.unpersist()
    factors = np.zeros((len(items), config.factors), np.float32)
    rows = found.column("features").combine_chunks().flatten().to_numpy()
    factors[found.column("id").to_numpy()] = rows.reshape(-1, config.factors)
    if vectors is not None and config.text_penalty is not None:
        counts = np.zeros(len(items), np.int64)
        counts[events.column("item").to_numpy()] = events.column("events").to_numpy()
        factors = factors_from_texts(factors, vectors, counts, config.text_penalty)
    return AlsRetriever(factors, config)
